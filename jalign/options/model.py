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
        rank_stabilised: multiply by alpha / sqrt(rank) instead (rsLoRA).
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
        path: a Hugging Face folder (safetensors), on disk or in a bucket (gs://, s3://), or a hub
          name; "embedded" is the model in the package.
        tokenizer: folder or hub name of the tokenizer; the model's own when not given.
        dtype: of the computation; auto is bfloat16 on accelerators, float32 on CPU. Trained
          parameters are float32.
        remat: what the backward pass recomputes to save memory: dots all but matrix products and
          the output of attention; attention all but what attention reads and writes;
          attention_output all but what it writes; full each layer.
        attention: kernel; auto selects by device and logs which.
        lora: train adapters instead of every parameter.
        adapter: a PEFT adapter folder to continue from; its start is the reference.
        quant: keep the frozen matrices under adapters in 4 bits (nf4, as in QLoRA) or 8 (int8);
          w8a8 and fp8 also multiply in 8 bits, twice as fast where the device has such units (int8:
          TPU v5e and v6e, H100, H200; fp8: H100, H200).
        reference: another model with the same tokenizer as the frozen reference, such as a teacher;
          a copy of the model itself when not given.
        reference_offload: host keeps the frozen reference of full fine-tuning in host memory; every
          micro-batch reads its layers from there, one at a time.
        critic: the model that the critic starts from, for algorithms that train one; the policy's
          when not given. "shared": a scalar head on the policy instead. With adapters, a critic
          from the same model shares the policy's frozen weights.
        heads: outputs of a reward model's scalar head: the attributes of multi_attribute.
        router_balance: weight of a loss that spreads the tokens of each response over the experts
          of a mixture; 0: none, whatever router_aux_loss_coef the model's config.json has.
        router_z: weight of a loss that keeps the logits of its router small.
        depth: keep only the first layers, this many, as a student to distill into; 0 is all.
    """

    path: str = "embedded"
    tokenizer: str | None = None
    # parameters stay float32: bfloat16 swallows updates below 1/256 of a weight
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    # none: recomputing costs a third more time, and many models fit without it
    remat: Literal["none", "dots", "attention", "attention_output", "full"] = "none"
    attention: Literal["auto", "xla", "blocked", "cudnn", "splash"] = "auto"
    # None trains every parameter; a section with defaults could not be told from that
    lora: LoraConfig | None = None
    adapter: str | None = None
    quant: Literal["none", "nf4", "int8", "w8a8", "fp8"] = "none"
    reference: str | None = None
    reference_offload: Literal["none", "host"] = "none"
    critic: str | None = None
    heads: int = 1
    router_balance: float = 0.0
    router_z: float = 0.0
    depth: int = 0
