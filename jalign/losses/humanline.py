"""Humanline: any loss of log-ratios with the log-ratio of every token clamped.

Liu, Ethayarajh et al. 2025, "Humanline: Online Alignment as Perceptual Loss".
https://arxiv.org/abs/2509.24207, as in the authors' code (ContextualAI/HALOs:
`get_sequence_rewards` and `get_ratios`).
"""

import inspect
from collections.abc import Callable
from functools import cache

import jax.numpy as jnp
from jax import Array

from jalign.losses._math import require

Loss = Callable[..., tuple[Array, dict[str, Array]]]

_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_OWN = """  log_epsilon_p, log_epsilon_r: the log-ratio of a token is kept between them, nats,
    log_epsilon_p < 0 < log_epsilon_r; -1 and 1.5 in the authors' config.
"""


@cache
def humanline(loss: Loss) -> Loss:
    """`loss` of log-probs whose log-ratio, token by token, is clip(log p - log p_ref, low, high).

    People perceive the probability of an outcome distortedly, and the clip is the simulation of it.
    A token beyond a bound has no gradient. The clipped log-ratios are added up where the loss reads
    log-probs of responses.

    Args:
      loss: reads, of one or several responses, log-probs and those of the reference (`logps` and
        `ref_logps`, `chosen_logps` ..., or of tokens), or, of samples, `token_logps` and
        `old_token_logps`.
    Returns:
      A loss that reads log-probs of tokens and their masks in place of those of responses, with the
      further hyper-parameters `log_epsilon_p` and `log_epsilon_r`, and the metrics of `loss`.
    Raises:
      TypeError: a loss that reads no log-ratio.
    Deviations: the authors copy the policy into the reference before every step, which a row does
      (`algorithms.humanline`), not the loss.
    >>> import jax.numpy as jnp
    >>> from jalign.losses import dpo
    >>> a = lambda *x: jnp.array([x])
    >>> x = dict(chosen_token_logps=a(-1.0, -4.0), ref_chosen_token_logps=a(-3.0, -1.0))
    >>> x |= dict(rejected_token_logps=a(-1.0, -2.0), ref_rejected_token_logps=a(-1.5, -2.0))
    >>> x |= dict(chosen_mask=a(True, True), rejected_mask=a(True, False))
    >>> loss, metrics = humanline(dpo)(**x, beta=1.0)
    >>> metrics["chosen_rewards"].tolist(), metrics["rejected_rewards"].tolist()
    ([0.5], [0.5])
    """
    own = inspect.signature(loss)
    names = [p.name for p in own.parameters.values() if p.kind is not _KEYWORD]
    bases = {name: base for name in names if (base := _base(name, names))}
    if not bases:
        raise TypeError(
            f"humanline clips log-ratios; {loss.__name__} reads {', '.join(names)}, none of them "
            "beside its reference"
        )
    # a mask is read once, also by both sides of a log-ratio
    read = dict.fromkeys(n for name in names for n in _tokens_of(name, bases))
    hyper = [p for p in own.parameters.values() if p.kind is _KEYWORD]
    for name, default in (("log_epsilon_p", -1.0), ("log_epsilon_r", 1.5)):
        hyper.append(inspect.Parameter(name, _KEYWORD, default=default))
    arrays = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in read]
    signature = own.replace(parameters=[*arrays, *hyper])

    def clipped(*args: object, **options: object) -> tuple[Array, dict[str, Array]]:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        given = dict(bound.arguments)
        low, high = given.pop("log_epsilon_p"), given.pop("log_epsilon_r")
        require(low < 0, f"log_epsilon_p must be < 0, got {low}")
        require(high > 0, f"log_epsilon_r must be > 0, got {high}")
        of_loss = {n: given[n] for n in (*names, *(p.name for p in hyper)) if n in given}
        # what the loss reads besides log-ratios reaches it unchanged
        for name, base in bases.items():
            of_loss |= _clip(given, name, base, low, high)
        return loss(**of_loss)

    # not functools.wraps: the arrays are others than those of the loss
    clipped.__name__ = clipped.__qualname__ = f"humanline_{loss.__name__}"
    clipped.__signature__ = signature  # type: ignore[attr-defined]
    clipped.__doc__ = _documented(loss)
    return clipped


def _base(name: str, names: list[str]) -> str | None:
    """The array that the log-probs `name` are compared with; None if there is none."""
    if not name.endswith("logps") or name.startswith(("ref_", "old_")):
        return None
    return next((base for base in (f"old_{name}", f"ref_{name}") if base in names), None)


def _tokens_of(name: str, bases: dict[str, str]) -> tuple[str, ...]:
    """The arrays of tokens from which this array of the loss is computed."""
    if name not in (*bases, *bases.values()) or "token_logps" in name:
        return (name,)
    prefix = name.removesuffix("logps")
    mask = prefix.removeprefix("ref_").removeprefix("old_") + "mask"
    return f"{prefix}token_logps", mask


def _clip(
    given: dict[str, Array], name: str, base: str, low: float, high: float
) -> dict[str, Array]:
    """The arrays `name` and `base` of the loss, with clipped log-ratios."""
    (of_policy, *mask), (of_base, *_) = (_tokens_of(x, {name: base}) for x in (name, base))
    policy, reference = (jnp.asarray(given[x], jnp.float32) for x in (of_policy, of_base))
    if not mask:
        # unscored positions may be NaN, which the loss itself leaves out
        return {name: reference + jnp.clip(policy - reference, low, high), base: reference}
    there = given[mask[0]]
    reference = jnp.where(there, reference, 0.0)
    ratio = jnp.clip(jnp.where(there, policy, 0.0) - reference, low, high)
    # the reference as it is, so that the difference is the sum of the clipped log-ratios
    total = reference.sum(-1)
    return {name: total + ratio.sum(-1), base: total}


def _documented(loss: Loss) -> str:
    """The docstring of a loss with what `humanline` adds to it."""
    doc = inspect.getdoc(loss) or ""
    head = f"`{loss.__name__}` with clamped log-ratios of tokens: see `humanline`. The loss itself:"
    return head + "\n\n" + doc.replace("Args:\n", f"Args:\n{_OWN}", 1)
