"""Optimizers and learning-rate schedules, all from optax."""

import re
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import PyTree

from jalign.optim.adam8bit import quantize_moments
from jalign.parallel.paths import path_name

OptimizerName = Literal["adamw", "adafactor", "lion", "muon", "sgd"]
ScheduleName = Literal["constant", "linear", "cosine"]
MomentsName = Literal["float32", "int8"]

_DEFAULTS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0}
READS: dict[str, tuple[str, ...]] = {
    "adamw": ("b1", "b2", "eps", "weight_decay"),
    "lion": ("b1", "b2", "weight_decay"),
    "muon": ("b1", "b2", "weight_decay"),
    "adafactor": ("weight_decay",),
    "sgd": ("momentum",),
}
_NOT_DECAYED = re.compile(r"norm|bias|sinks|a_log")
_ADAPTER = re.compile(r"lora\.[ab]$")
# Embeddings and heads are matrices too, but Muon is meant for hidden layers.
_STACKED_MATRIX = re.compile(r"layers\..*(kernel|lora\.[ab])$")


def make_schedule(
    name: ScheduleName,
    learning_rate: float,
    *,
    steps: int,
    warmup_steps: int = 0,
    final_lr_fraction: float = 0.0,
) -> optax.Schedule:
    """Linear warm-up, then constant, or linear or cosine decay to
    `final_lr_fraction * learning_rate` at `steps`.

    Step i (from 0) of the warm-up uses (i + 1) / warmup_steps of the rate, so the first is above 0.

    Raises:
      ValueError: a value out of range, or a final fraction of a constant schedule.
    """
    if learning_rate < 0:
        raise ValueError(f"learning_rate must be >= 0, got {learning_rate}")
    if not 0 <= warmup_steps <= steps:
        raise ValueError(
            f"warmup_steps must be in 0..{steps} (the updates of the run), got {warmup_steps}"
        )
    if not 0 <= final_lr_fraction <= 1:
        raise ValueError(
            f"final_lr_fraction is a fraction of learning_rate, 0 to 1, got {final_lr_fraction}"
        )
    if final_lr_fraction and name == "constant":
        raise ValueError("final_lr_fraction does not apply to a constant schedule; set it to 0")
    left = max(steps - warmup_steps, 1)
    after = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "linear": lambda: optax.linear_schedule(
            learning_rate, final_lr_fraction * learning_rate, left
        ),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, left, alpha=final_lr_fraction),
    }[name]()
    if not warmup_steps:
        return after
    # A warm-up from 0, optax's usual one, would waste the first step.
    first = learning_rate / warmup_steps
    warmup = optax.linear_schedule(first, learning_rate, max(warmup_steps - 1, 1))
    return optax.join_schedules([warmup, after], [warmup_steps])


def make_optimizer(
    name: OptimizerName,
    schedule: optax.ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    clip_norm: float | None = 1.0,
    l1: float = 0.0,
    moments: MomentsName = "float32",
) -> optax.GradientTransformation:
    """Clipping by global norm, then the optimizer, then, with l1 > 0, `soft_threshold`. Norms and
    biases are not decayed.

    Muon's momentum is b1; parameters that are not stacked matrices use Adam with b1 and b2. With
    moments "int8" they are quantized by `adam8bit.quantize_moments`.

    Raises:
      ValueError: an option that the optimizer does not read (`READS`) differs from its default, or
        moments "int8" for an optimizer without moments.
    """
    if clip_norm is not None and clip_norm <= 0:
        raise ValueError(f"clip_norm must be > 0, or null for no clipping, got {clip_norm}")
    if not l1 >= 0:
        raise ValueError(f"l1 must be >= 0, got {l1}")
    given = {"b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
    # An option that is silently ignored makes a sweep over it look like a result.
    for number, value in given.items():
        if number not in READS[name] and value != _DEFAULTS[number]:
            raise ValueError(
                f"{number} does not apply to {name}, which reads {', '.join(READS[name])}: "
                f"leave it at {_DEFAULTS[number]}"
            )
    if moments == "int8" and (name == "adafactor" or (name == "sgd" and not momentum)):
        why = (
            "keeps sums of rows and columns" if name == "adafactor" else "without momentum has none"
        )
        raise ValueError(f"moments: int8 does not apply to {name}, which {why}")
    core = {
        "adamw": lambda: optax.adamw(
            schedule, b1, b2, eps, weight_decay=weight_decay, mask=decayed
        ),
        "lion": lambda: optax.lion(schedule, b1, b2, weight_decay=weight_decay, mask=decayed),
        "adafactor": lambda: optax.adafactor(
            schedule,
            # Otherwise steps scale with a parameter's size, and LoRA's B starts at 0.
            multiply_by_parameter_scale=False,
            weight_decay_rate=weight_decay or None,
            weight_decay_mask=decayed,
        ),
        "muon": lambda: optax.contrib.muon(
            schedule,
            beta=b1,
            weight_decay=weight_decay,
            weight_decay_mask=decayed,
            adam_b1=b1,
            adam_b2=b2,
            muon_weight_dimension_numbers=_muon_axes,
        ),
        "sgd": lambda: optax.sgd(schedule, momentum or None),
    }[name]()
    core = quantize_moments(core) if moments == "int8" else core
    # Without l1 exactly this, so that the state of older checkpoints fits.
    core = core if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), core)
    return optax.chain(core, soft_threshold(schedule, l1)) if l1 else core


class SoftThresholdState(NamedTuple):
    """Updates so far, and the value from which each parameter's change is measured."""

    step: Array
    start: Any


def soft_threshold(schedule: optax.ScalarOrSchedule, l1: float) -> optax.GradientTransformation:
    """Soft-threshold the change of every parameter, d <- sign(d) relu(|d| - lr l1), after each
    update: sparse deltas, as in PAFT.

    Pentyala et al. 2024, https://arxiv.org/abs/2406.17923: L = NLL + l1 ||d||_1. In full
    fine-tuning d = theta - theta_start for everything that is trained, norms and biases included.
    For an adapter d is the factor A or B itself (a scalar head counts as fully trained): sparse
    factors do not make the product B A sparse.

    theta_start is kept in the state in float32, sharded like theta: 4 more bytes per fully trained
    parameter, in memory and in checkpoints. Adapters need none.

    Deviations: the proximal step of the norm instead of its subgradient, which never reaches 0.
    Like AdamW's weight decay it is decoupled from the gradient. Under Adam, Lion and Muon, whose
    steps are about lr whatever the gradient's size, l1 is therefore the fraction of a full step
    that an entry must move on average to stay nonzero. The paper's 1e-4 to 1e-3 are in units of
    the gradient, as here with sgd.
    """

    def start(path: tuple, x: Array) -> Array:
        if _ADAPTER.search(path_name(path)):
            return jnp.zeros((), jnp.float32)
        return jnp.array(x, jnp.float32, copy=True)  # the parameter's own buffer is donated

    def init(params: Any) -> SoftThresholdState:
        return SoftThresholdState(
            jnp.zeros((), jnp.int32), jax.tree_util.tree_map_with_path(start, params)
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, SoftThresholdState]:
        rate = schedule(state.step) if callable(schedule) else schedule

        def shrink(u: Array, p: Array, s: Array) -> Array:
            before = p - s
            d = before + u
            d = jnp.sign(d) * jax.nn.relu(jnp.abs(d) - rate * l1)
            return (d - before).astype(u.dtype)

        updates = jax.tree.map(shrink, updates, params, state.start)
        return updates, SoftThresholdState(state.step + 1, state.start)

    return optax.GradientTransformation(init, update)


def decayed(params: PyTree) -> PyTree:
    """True where weight decay applies."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not _NOT_DECAYED.search(path_name(path)), params
    )


def _muon_axes(params: Any) -> Any:
    """Orthogonalize each layer's matrix [L, in, out] separately, and each expert's
    [L, E, in, out]; all else uses Adam.
    """

    def axes(path: Any, x: Any) -> optax.contrib.MuonDimensionNumbers | None:
        if not _STACKED_MATRIX.search(path_name(path)):
            return None
        return optax.contrib.MuonDimensionNumbers(x.ndim - 2, x.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)
