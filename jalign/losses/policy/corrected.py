"""The wrapper that weighs any loss of samples with rollout corrections.

Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training"; the other
sources are with the weights (`jalign.losses.policy.corrections`), such as
https://arxiv.org/abs/2510.18855.
"""

import inspect
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from jalign.losses._math import require
from jalign.losses._tokens import of_response, recorded
from jalign.losses.policy.corrections import BY_SAMPLER, CORRECTIONS, opsm

Loss = Callable[..., tuple[Array, dict[str, Array]]]


def corrected(loss: Loss, corrections: Mapping[str, float]) -> Loss:
    """The loss times the product of `corrections`: name -> `high`, for ANY loss of samples.

    A weight multiplies value and gradient, and a token or response with weight 0 has no gradient;
    the divisor of the mean stays as it is, as in TRL. A loss of responses is multiplied with the
    weight of the response: `tis` and `mis` then bound the product of its ratios.

    Args:
      loss: with one value per token or per response.
      corrections: of `CORRECTIONS`; none gives the loss itself.
    Returns:
      A loss with the parameters of `loss` and those of the arrays token_logps, old_token_logps,
      sampler_token_logps, advantages and mask that the corrections read. Its metrics are those of
      `loss`, the product as `rollout/weight`, and where it is 0 as `rollout/rejected`.
    Raises:
      ValueError: an unknown name or a number out of its range.
    >>> from jalign.losses import reinforce
    >>> a = lambda *x: jnp.array([x])
    >>> fn = corrected(reinforce, {"tis": 2.0, "mis": 8.0})
    >>> x = {"token_logps": a(-1.0), "advantages": a(3.0), "mask": a(True)}
    >>> fn(**x, old_token_logps=a(-1.0), sampler_token_logps=a(-9.0))[0].tolist()
    [[0.0]]
    """
    for name, high in corrections.items():
        allowed = ", ".join(CORRECTIONS)
        require(name in CORRECTIONS, f"no correction {name!r}; there is: {allowed}")
        _check(name, high)
    if not corrections:
        return loss
    own = inspect.signature(loss)
    arrays = {n: p for n, p in own.parameters.items() if p.kind is not p.KEYWORD_ONLY}
    hyper = [p for p in own.parameters.values() if p.kind is p.KEYWORD_ONLY]
    reads = ["sampler_token_logps", "mask"]
    reads += ["old_token_logps"] if set(corrections) & set(BY_SAMPLER) else []
    reads += ["token_logps", "advantages"] if "opsm" in corrections else []
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    more = [inspect.Parameter(n, kind) for n in reads if n not in arrays]
    parameters = [*arrays.values(), *more, *hyper]

    def fn(*args: Array, **kwargs: Array | float) -> tuple[Array, dict[str, Array]]:
        given = inspect.Signature(parameters).bind(*args, **kwargs).arguments
        value, metrics = loss(**{n: x for n, x in given.items() if n in own.parameters})
        weight = jax.lax.stop_gradient(_product(corrections, given, value.ndim == 1))
        # a where: a rejected response may have an infinite loss, and 0 * inf is NaN
        value = jnp.where(weight > 0, value, 0.0) * weight
        rejected = (weight == 0).astype(jnp.float32)
        return value, metrics | {"rollout/weight": weight, "rollout/rejected": rejected}

    fn.__name__, fn.__doc__, fn.__module__ = loss.__name__, loss.__doc__, loss.__module__
    fn.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return fn


def _product(
    corrections: Mapping[str, float], given: Mapping[str, Array], by_response: bool
) -> Array:
    """The product of the weights, [B, R], or [B] for a loss of responses."""
    mask, sampler = given["mask"], given["sampler_token_logps"]
    weight = jnp.ones(mask.shape, jnp.float32)
    for name, high in corrections.items():
        if name == "opsm":
            arrays = (given["token_logps"], sampler, given["advantages"], mask)
            weight *= opsm(*arrays, high=high)
            continue
        arrays = (given["old_token_logps"], sampler, mask)
        if by_response and name in ("tis", "mis"):
            # a response is one action, whose ratio is the product
            arrays = tuple(x.sum(-1, keepdims=True) for x in recorded(mask, *arrays[:2]))
            arrays = (*arrays, mask.any(-1, keepdims=True))
        weight *= BY_SAMPLER[name](*arrays, high=high)
    return of_response(weight, mask) if by_response else weight


def _check(name: str, high: float) -> None:
    """Raise ValueError for a bound that the correction refuses."""
    x, yes = jnp.zeros((1, 1)), jnp.ones((1, 1), bool)
    opsm(x, x, x, yes, high=high) if name == "opsm" else BY_SAMPLER[name](x, x, yes, high=high)
