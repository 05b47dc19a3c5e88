"""Names of curves: what is learned stands first, clocks and counters last."""

from collections.abc import Mapping

_OUTCOMES = ("loss", "reward", "rewards/", "objective/kl")
_PROGRESS = (
    "epoch", "eta_s", "memory/", "num_tokens", "skipped", "skipped_in_a_row", "step_time",
    "tokens_per_second",
)  # fmt: skip
_GROUPS = {
    "train": ("train", "training", "training_progress"),
    "eval": ("eval", "validation", "validation_progress"),
}


def tag(kind: str, name: str) -> str:
    """The curve of a metric. Trackers sort groups by name, and TensorBoard opens the first two:
    `eval` and `train`, which hold loss, rewards and KL. `training` and `validation` have what
    explains them, `training_progress` clocks, counters and memory.

    >>> tag("train", "rewards/margins"), tag("train", "grad_norm"), tag("train", "eta_s")
    ('train/rewards/margins', 'training/grad_norm', 'training_progress/eta_s')
    >>> tag("eval", "logps/chosen"), tag("samples", "samples/sentiment/mean")
    ('validation/logps/chosen', 'samples/sentiment/mean')
    """
    if name.startswith(f"{kind}/"):
        return name
    first, second, third = _GROUPS.get(kind, (kind, kind, kind))
    group = first if _in(name, _OUTCOMES) else third if _in(name, _PROGRESS) else second
    return f"{group}/{name}"


def tagged(kind: str, metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Tag -> value, of the metrics that have one."""
    return {tag(kind, name): value for name, value in metrics.items() if value is not None}


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Options by dotted name.

    >>> flat({"seed": 0, "optim": {"name": "adamw"}})
    {'seed': 0, 'optim.name': 'adamw'}
    """
    result: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def _in(name: str, names: tuple[str, ...]) -> bool:
    return any(name == x or (x[-1] == "/" and name.startswith(x)) for x in names)
