"""Merging several models of one base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jalign.options.export import Dtype

Method = Literal["linear", "ties", "dare", "dare_ties", "slerp"]

READS: dict[str, tuple[str, ...]] = {
    "linear": ("weights",),
    "ties": ("weights", "density", "scale", "trim"),
    "dare": ("weights", "drop", "seed"),
    "dare_ties": ("weights", "drop", "seed", "scale"),
    "slerp": ("t",),
}
"""Merging method -> the options it reads."""

DEFAULTS = {"density": 0.2, "scale": 1.0, "trim": "tensor", "seed": 0, "t": 0.5}


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Merge models that were trained separately from the same base, and write a Hugging Face folder
    with the base's tokenizer. Needs host memory for every model in float32.

    Args:
        out: folder to write.
        base: the model that all were trained from: folder, hub name, or embedded.
        models: run folders, PEFT adapters of the base, Hugging Face folders or hub names.
        method: ties for several models, linear (the plain sum) for one, unless given.
        weights: [linear, ties, dare, dare_ties] one per model; 1 for each.
        density: [ties] fraction of each delta that is kept; 0.2.
        scale: [ties, dare_ties] factor of the merged delta; 1.
        trim: [ties] count entries per tensor or over the whole model; tensor.
        drop: [dare, dare_ties] probability that an entry is dropped.
        seed: [dare, dare_ties] of the dropped entries; 0.
        t: [slerp] 0 is the first model, 1 the second; 0.5.
        dtype: of the weights; base: that of the base.
        overwrite: replace a model that OUT holds.
    """

    out: str
    base: str
    models: list[str]
    method: Method | None = None
    weights: list[float] | None = None
    density: float | None = None
    scale: float | None = None
    trim: Literal["tensor", "global"] | None = None
    drop: float | None = None
    seed: int | None = None
    t: float | None = None
    dtype: Dtype = "base"
    overwrite: bool = False

    def __post_init__(self):
        if self.method is None:
            # the dataclass is frozen; here the default depends on the number of models
            object.__setattr__(self, "method", "ties" if len(self.models) > 1 else "linear")
        self.hyper()

    def hyper(self) -> dict[str, Any]:
        """All hyper-parameters of the method, each given or its default.

        Raises:
          ValueError: one does not apply to the method, one is missing, or slerp has not two models.
        """
        assert self.method is not None
        reads = READS[self.method]
        names = dict.fromkeys(name for options in READS.values() for name in options)
        # None means not passed: defaults here would hide an option that does not apply
        values = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        for name in values:
            if name not in reads:
                raise ValueError(
                    f"--{name} does not apply to {self.method}, which reads "
                    + ", ".join(f"--{option}" for option in reads)
                )
        # slerp is a path between two points; more of them would depend on their order
        n = len(self.models)
        if self.method == "slerp" and n != 2:
            raise ValueError(f"slerp interpolates between two models: --models needs two, got {n}")
        if "drop" in reads and "drop" not in values:
            raise ValueError(
                f"{self.method} needs --drop, the probability that an entry is dropped"
            )
        # a default for `weights` needs the number of models, so it is not in DEFAULTS
        filled = DEFAULTS | {"weights": [1.0] * n} | values
        return {name: filled[name] for name in reads}

    def warnings(self) -> list[str]:
        """What this merge loses or adds that may not be intended."""
        hyper, one = self.hyper(), len(self.models) == 1
        warnings = []
        # a warning and not an error: trimming a single delta is a legitimate compression
        density = hyper.get("density", 1.0)
        if density < 1 and one:
            warnings.append(
                f"{self.method} keeps {density:g} of what {self.models[0]} learned; "
                "--method linear takes all of it, and so does jalign export RUN OUT of a run"
            )
        if "drop" in hyper and one:
            warnings.append(f"{self.method} of one model: a {hyper['drop']:g} of it is dropped")
        total = sum(hyper.get("weights", [1.0]))
        if self.method in ("linear", "dare") and abs(total - 1) > 1e-6:
            warnings.append(
                f"the weights add up to {total:g}: what the models learned is added, not averaged "
                "(--weights that add up to 1 average)"
            )
        return warnings
