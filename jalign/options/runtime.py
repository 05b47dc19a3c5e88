"""Devices, checkpoints, and samples during a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices = data x fsdp x expert x context x tensor; one of them may be -1: what is left.

    Args:
        data: copies of the model, each on its share of the batch.
        fsdp: shards of parameters and batch.
        tensor: shards of each matrix.
        context: shards of the tokens of a stream, for rows too long for one device; attention
          exchanges tokens for heads.
        expert: shards of the experts of a mixture; parameters and batch as by fsdp, and tokens
          are exchanged to meet their experts.
        rules: regular expression over parameter paths -> mesh axis (or null) of each dimension,
            instead of the default: {'.*mlp.*kernel': [null, fsdp, tensor], '.*': []}.
    """

    data: int = 1
    # shards by default: copies (data) need room for the whole state on every device
    fsdp: int = -1
    tensor: int = 1
    context: int = 1
    expert: int = 1
    rules: dict[str, list[str | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Continuations written before, during and after training.

    Args:
        prompts: number of held-out prompts; 0 for none.
        every: optimizer steps between them; 0 for before and after only.
        max_new_tokens: most tokens of a continuation.
        temperature: 0 is greedy.
        score: report the mean of a score of the continuations: sentiment is VADER's, in [-1, 1].
    """

    prompts: int = 0
    every: int = 0
    max_new_tokens: int = 64
    temperature: float = 0.0
    score: Literal["sentiment"] | None = None


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Where the curves and texts of a run go, besides metrics.jsonl in its folder.

    Args:
        trackers: any of tensorboard, wandb, trackio and mlflow, each an extra of that name; a
          resumed run continues the same tracked run.
        project: of wandb and trackio; the experiment of mlflow.
    """

    trackers: list[Literal["tensorboard", "wandb", "trackio", "mlflow"]] = field(
        default_factory=lambda: ["tensorboard"]
    )
    project: str = "jalign"


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved, and how a run resumes.

    Args:
        every: optimizer steps between checkpoints; 0 for the last step only.
        keep: number of newest checkpoints that are kept.
        resume: auto resumes if there is a checkpoint; never refuses to; must requires one; an
          integer resumes from that step.
        allow_mismatch: facts that may differ from the checkpoint's (the error names them).
    """

    every: int = 100
    keep: int = 2
    # auto, so that the command that started a run is the one that resumes it
    resume: Literal["auto", "never", "must"] | int = "auto"
    allow_mismatch: list[str] = field(default_factory=list)
