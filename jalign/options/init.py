"""Options of `jalign init`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Write a commented config for a model and data of one's own: jalign init mine.yaml
    --algorithm dpo --model HuggingFaceTB/SmolLM2-135M-Instruct --data pairs.jsonl

    Args:
        file: the config to write; ALGORITHM.yaml when not given.
        algorithm: jalign algorithms lists them.
        model: a Hugging Face folder or hub name, or embedded.
        data: a file, folder or hub name; the data in the package when not given.
        lora: rank of the adapters; 0 trains every parameter, as for the embedded model.
        reward: of online algorithms: a rule that ships (exact_match ..), file.py:function, or the
          folder of a reward model.
        pretraining: texts whose likelihood ppo_ptx keeps up.
        teacher: of distillation: the teacher model.
    """

    algorithm: str
    file: str | None = None
    model: str = "embedded"
    data: str | None = None
    lora: int = 16
    reward: str | None = None
    pretraining: str | None = None
    teacher: str | None = None
