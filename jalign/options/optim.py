"""The optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import optax

from jalign.optim.online_merging import online_merging
from jalign.optim.optimizer import (
    MomentsName,
    OptimizerName,
    ScheduleName,
    make_optimizer,
    make_schedule,
)


@dataclass(frozen=True, kw_only=True)
class MergingConfig:
    """Online merging (arXiv 2405.17931): every step is merged with what fine-tuning changed before,
    so that aligning the fine-tuned model, model.path, forgets less of it.

    Args:
        base: the model before fine-tuning: a folder, hub name or run.
        method: dare (OnDARE) drops entries at random, ties (OnTIES) keeps the largest of one sign.
        alpha: weight, in every step, of what fine-tuning changed, in [0, 1).
        density: share of the entries that stay, in (0, 1].
    """

    base: str = ""
    method: Literal["dare", "ties"] = "dare"
    alpha: float = 1e-6
    density: float = 0.5


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer (optax).

    Args:
        name: which one.
        learning_rate: at its peak; null is the usual one for adamw and the kind of run: 2e-5 for
          demonstrations (SFT), 1e-5 for reward models, 1e-6 for preferences and online; ten times
          as much for adapters (jalign.options.rates).
        schedule: after the warm-up.
        warmup_steps: optimizer steps of linear warm-up.
        final_lr_fraction: the rate at the end, as a fraction of learning_rate.
        b1: first decay of adamw, lion; momentum of muon.
        b2: second decay of adamw, lion.
        eps: of adamw.
        weight_decay: on matrices, not on norms and biases.
        momentum: of sgd.
        clip_norm: largest global gradient norm; null for no clipping.
        l1: sparsity: after each step every entry's change since the start (for adapters, the entry
          itself) moves learning rate x l1 towards 0; 0 is off.
        moments: int8 keeps the moments of adamw, lion, muon and sgd with momentum in 8 bits
          (block-wise dynamic quantization, arXiv 2110.02861): about 2 bytes per parameter for adamw
          instead of 8. Arrays below 4096 entries stay float32.
        offload: host keeps the optimizer's state in host memory; every step moves it to the devices
          and back. The numbers do not change, so a run may resume with another choice. With
          moments: int8 only from JAX 0.12.
        merging: merge every update with what fine-tuning changed before: full fine-tuning of a
          language model, 4 more bytes per parameter.
    """

    name: OptimizerName = "adamw"
    # None until RunOptions, which knows the algorithm, fills it in
    learning_rate: float | None = None
    schedule: ScheduleName = "cosine"
    warmup_steps: int = 0
    # a fraction: an absolute rate would have to change with learning_rate
    final_lr_fraction: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    clip_norm: float | None = 1.0
    l1: float = 0.0
    moments: MomentsName = "float32"
    offload: Literal["none", "host"] = "none"
    merging: MergingConfig | None = None

    def make(self, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
        """The optimizer and schedule for this number of steps; with `merging` a run has to add
        what fine-tuning changed (`jalign.run.merging_base`).

        Raises:
          ValueError: an option is out of range, or does not apply to the optimizer or schedule.
        """
        # refused here: the compiler's own error names neither option
        if self.offload == "host" and self.moments == "int8" and jax.__version_info__ < (0, 12):
            raise ValueError(
                "offload: host with moments: int8 needs JAX 0.12: TPU compilers before it hold no "
                f"8-bit arrays in the host's memory, and this is {jax.__version__}"
            )
        if self.offload == "host" and self.name == "sgd" and not self.momentum:
            raise ValueError(
                "offload: host does not apply to sgd without momentum: it has no state"
            )
        # outside of a run nothing says which rate is usual
        if self.learning_rate is None:
            raise ValueError("optim.learning_rate: only a run with an algorithm has a usual one")
        schedule = make_schedule(
            self.schedule,
            self.learning_rate,
            steps=steps,
            warmup_steps=self.warmup_steps,
            final_lr_fraction=self.final_lr_fraction,
        )
        optimizer = make_optimizer(
            self.name,
            schedule,
            b1=self.b1,
            b2=self.b2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            clip_norm=self.clip_norm,
            l1=self.l1,
            moments=self.moments,
        )
        if self.merging is not None:
            # the base is not here: most of those who ask need only the shapes of the state
            optimizer = online_merging(
                optimizer,
                None,
                alpha=self.merging.alpha,
                density=self.merging.density,
                method=self.merging.method,
            )
        return optimizer, schedule
