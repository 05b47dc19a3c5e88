"""Writing a run's model as a folder for other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["base", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a run's model as a Hugging Face folder that `transformers` loads, adapters merged into
    it; or with --adapter the LoRA adapter alone, which `peft` loads.

    The tokenizer with the chat template, the tokens that end a response and a model card are
    written too.

    Args:
        run: folder that jalign train wrote.
        out: folder to write.
        step: which checkpoint of a run: its step, or best (what stop.metric kept); the newest.
        adapter: write only the LoRA adapter, in PEFT's format.
        dtype: of the weights; base: that of the model the run started from. Adapters are float32.
        overwrite: replace a model that OUT holds.
        normalize_reward: make a reward model's rewards of the run's held-out responses have mean 0
          and standard deviation 1; the bias this takes goes to OUT/reward.json, as the head has
          none.
    """

    run: str
    out: str
    step: str | None = None
    adapter: bool = False
    dtype: Dtype = "base"
    overwrite: bool = False
    normalize_reward: bool = False

    def __post_init__(self):
        # before a model is loaded, which takes minutes
        if self.adapter and self.normalize_reward:
            raise ValueError("--normalize_reward scales the head, which --adapter leaves out")
        if self.adapter and self.dtype != "base":
            raise ValueError("--dtype does not apply to --adapter: adapters are float32")
