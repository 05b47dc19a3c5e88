"""The model that is trained: path, types, adapters, quantization, reference, critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters: the base is frozen, only they are trained and saved.

    Args:
        rank: width of the adapters.
        alpha: scale; the update is multiplied by alpha / rank.
        dropout: on the adapters' input, in training only.
        targets: regular expression over module paths such as layers.attn.q.
        rank_stabilised: multiply by alpha / sqrt(rank) instead.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str = r"layers\.(attn\.(q|k|v|o)|mlp\.(gate|up|down))"
    rank_stabilised: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model that is trained.

    Args:
        path: a Hugging Face folder (safetensors) or hub name; "embedded" is the model in the
          package.
        tokenizer: folder or hub name of the tokenizer; the model's own when not given.
        dtype: of the computation; auto is bfloat16 on accelerators, float32 on CPU. What is trained
          is kept in float32.
        remat: what the backward pass computes again to save memory.
        attention: kernel; auto chooses by device and says which.
        lora: train adapters instead of the whole model.
        adapter: a PEFT adapter folder to go on from; it is its own reference.
        quant: keep the matrices under adapters in 4 bits (nf4, as in QLoRA) or 8 (int8).
        reference: another model with the same tokenizer as the frozen reference, such as a teacher;
          a copy of the model itself when not given.
        reference_offload: host keeps the frozen reference of full fine-tuning in the memory of the
          hosts; every micro-batch reads its layers from there, one at a time.
        critic: where the critic of an algorithm that trains one starts; the model's own path when
          not given. "shared": none of its own, but a scalar head on the policy. With adapters, a
          critic that starts where the policy does stands on the same frozen weights.
        heads: numbers that the scalar head of a reward model gives: the attributes of
          multi_attribute.
        depth: keep only the first so many layers of what is loaded, as a student to distil into; 0
          is all of them.
    """

    path: str = "embedded"
    tokenizer: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    remat: Literal["none", "dots", "full"] = "none"
    attention: Literal["auto", "xla", "blocked", "cudnn", "splash"] = "auto"
    lora: LoraConfig | None = None
    adapter: str | None = None
    quant: Literal["none", "nf4", "int8"] = "none"
    reference: str | None = None
    reference_offload: Literal["none", "host"] = "none"
    critic: str | None = None
    heads: int = 1
    depth: int = 0
