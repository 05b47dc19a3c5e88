"""Divergences between two distributions over a vocabulary, from their logits.

Agarwal et al. 2023 (GKD), https://arxiv.org/abs/2306.13649. For research code and as the
reference in tests of the scorer's blocked computation: this one holds [tokens, vocabulary] arrays.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def generalized_jsd(
    logits: Float[Array, "*N V"],
    teacher_logits: Float[Array, "*N V"],
    *,
    beta: float,
    temperature: float = 1.0,
) -> Float[Array, "*N"]:
    """b KL(T || m) + (1 - b) KL(S || m), m = b T + (1 - b) S; KL(T || S) at b = 0, KL(S || T) at 1.

    S = softmax(logits / temperature) is the student, T the teacher likewise. The formula itself is
    0 at both ends; the KLs there are what it tends to after division by b and by 1 - b, so the
    value jumps at the ends. A token that both exclude (logit -inf) does not count; one that only
    the second distribution of a KL excludes makes it inf.

    Args:
      logits: of the student, any leading shape; float32 arithmetic.
      teacher_logits: of the teacher, over the same vocabulary. They have a gradient: stop it where
        the teacher is fixed.
      beta: b, in [0, 1]; 0.5 is the Jensen-Shannon divergence. Not a traced number: the ends are
        other formulas.
      temperature: both logits are divided by it, > 0; 1.
    Returns:
      The divergence in nats, one per distribution; no reduction.
    Raises:
      ValueError: a number out of its range.
    Deviations: none in value from TRL's `generalized_jsd_loss`, which reduces.
    >>> import jax.numpy as jnp
    >>> student, teacher = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.75, 0.25]))
    >>> [round(float(generalized_jsd(student, teacher, beta=b)), 4) for b in (0.0, 0.5, 1.0)]
    [0.1308, 0.0338, 0.1438]
    """
    require(0 <= beta <= 1, f"beta must be in [0, 1], got {beta}")
    require(temperature > 0, f"temperature must be > 0, got {temperature}")
    # temperature divides logits: log-probs divided by it are not normalized
    student, teacher = (
        jax.nn.log_softmax(x / temperature, -1) for x in f32(logits, teacher_logits)
    )
    # the general form is 0 at both ends; here, as in TRL, they are the KLs it tends to
    if beta == 0:
        return _kl(teacher, student)
    if beta == 1:
        return _kl(student, teacher)
    # logaddexp of two -inf has no gradient, and nothing reads the mixture where both are.
    some = jnp.maximum(student, teacher) > -jnp.inf
    t, s = jnp.where(some, teacher, 0.0), jnp.where(some, student, 0.0)
    mixture = jnp.logaddexp(jnp.log(beta) + t, jnp.log1p(-beta) + s)
    return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


def _kl(log_p: Array, log_q: Array) -> Array:
    """sum_v p_v (log p_v - log q_v), where 0 log 0 is 0."""
    there = log_p > -jnp.inf
    # both sides are replaced: -inf - -inf is NaN, in value and in gradient
    apart = jnp.where(there, log_p, 0.0) - jnp.where(there, log_q, 0.0)
    return jnp.sum(jnp.exp(log_p) * apart, -1)
