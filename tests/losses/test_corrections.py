"""Rollout corrections: the weights of verl's own code (1dda039), and what they do to any loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign import losses
from jalign.algorithms import ALGORITHMS, get
from jalign.algorithms.corrections import corrected
from jalign.core import arrays_of
from jalign.losses.policy import corrections as given
from tests._rows import B, R, draw

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
NAN = float("nan")
MASK = jnp.arange(4) < jnp.array([[4], [3], [2]])
OLD = A([-1.5, -0.5, -2.0, -1.75], [-0.25, -3.0, -1.0, NAN], [-0.75, -2.5, NAN, NAN])
LOG_RHO = A([0.9, -0.2, 0.05, -1.1], [0.02, -0.015, 0.03, NAN], [-0.4, 0.1, NAN, NAN])
SAMPLER = OLD - LOG_RHO


def close(value, expected):
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "high", "expected"),
    [
        ("tis", 2.0, [[2.0, 0.818731, 1.051271, 0.332871], [1.020201, 0.985112, 1.030455, 0],
                      [0.67032, 1.105171, 0, 0]]),
        ("mis", 2.0, [[0, 0.818731, 1.051271, 0], [1.020201, 0.985112, 1.030455, 0],
                      [0.67032, 1.105171, 0, 0]]),
        ("sequence_tis", 1.02, [[0.704688] * 4, [1.02] * 3 + [0], [0.740818] * 2 + [0, 0]]),
        ("geometric", 1.05, [[0] * 4, [1, 1, 1, 0], [0] * 4]),
        ("k3", 0.04, [[0] * 4, [1, 1, 1, 0], [1, 1, 0, 0]]),
    ],
)  # fmt: skip
def test_weights_are_those_of_verl(name, high, expected):
    close(getattr(given, name)(OLD, SAMPLER, MASK, high=high), expected)


def test_opsm_drops_bad_responses_that_the_policy_has_left():
    advantages = A([-1.0] * 4, [-2.0] * 4, [3.0, -0.5, NAN, NAN])
    # mean log(p_s / p) is 0.0875, -0.0117 and 0.15
    out = given.opsm(OLD, SAMPLER, advantages, MASK, high=0.05)
    close(out, [[0] * 4, [1, 1, 1, 0], [1, 0, 0, 0]])
    assert given.opsm(OLD, SAMPLER, advantages, MASK, high=0.1)[0].all()


TEN = {"ppo_clip", "gspo", "cispo", "rloo", "reinforce", "sapo", "gmpo", "vespo", "dppo_tv", "pmd"}
LOSSES = {row.loss.__name__: row for row in ALGORITHMS.values() if row.loss.__name__ in TEN}
HIGH = {"tis": 1.1, "mis": 1.3, "sequence_tis": 1.2, "geometric": 1.1, "k3": 0.03, "opsm": 0.02}


@pytest.mark.parametrize("name", [*HIGH, "tis and opsm"])
def test_a_correction_multiplies_value_and_gradient_of_any_loss(name):
    """By the weights of tokens, or that of the response for a loss of responses."""
    names = {n: HIGH[n] for n in name.split(" and ")}
    rejected = sum(rejected_by(names, row) for row in LOSSES.values())
    assert len(LOSSES) == 10 and bool(rejected) == (name not in ("tis", "sequence_tis"))


def rejected_by(names, row):
    """The number of tokens or responses that are left out, which have no gradient."""
    fields = draw(row)
    noise = jnp.asarray(np.random.default_rng(5).normal(size=(B, R)) * 0.3, jnp.float32)
    old = fields.setdefault("old_token_logps", fields["token_logps"] + noise[::-1])
    fields |= {"sampler_token_logps": old - noise}

    def call(fn, x):
        return fn(**{n: (fields | {"token_logps": x})[n] for n in arrays_of(fn)})

    logps, fn = fields["token_logps"], losses.corrected(row.loss, names)
    value, pull = jax.vjp(lambda x: call(row.loss, x)[0], logps)
    weight = weights(names, fields, by_response=value.ndim == 1)
    out, metrics = call(fn, logps)
    close(out, value * weight)
    close(metrics["rollout/weight"], weight)
    slope = jax.grad(lambda x: call(fn, x)[0].sum())(logps)
    close(slope, pull(weight)[0])
    outside = np.asarray(weight == 0)
    assert not np.asarray(slope)[outside].any()
    return (outside & np.asarray(fields["present" if value.ndim == 1 else "mask"])).sum()


def weights(names, fields, by_response):
    """By numpy, from the definitions."""
    m = np.asarray(fields["mask"])
    old, s, p = (np.asarray(fields[f"{n}token_logps"]) for n in ("old_", "sampler_", ""))
    log_rho, n = np.where(m, old - s, 0), m.sum(-1)
    total = np.exp(log_rho.sum(-1))
    rho = np.broadcast_to(total[:, None], m.shape) if by_response else np.exp(log_rho)
    left = np.where(m, s - p, 0).sum(-1) / n
    each = {
        "tis": lambda c: np.minimum(rho, c),
        "mis": lambda c: np.where((rho >= 1 / c) & (rho <= c), rho, 0),
        "sequence_tis": lambda c: np.minimum(total, c)[:, None],
        "geometric": lambda c: (np.abs(log_rho.sum(-1) / n) <= np.log(c))[:, None],
        "k3": lambda c: ((np.exp(log_rho) - 1 - log_rho).sum(-1) / n <= c)[:, None],
        "opsm": lambda c: (fields["advantages"] >= 0) | (left <= c)[:, None],
    }
    out = np.where(m, 1.0, 0.0)
    for name, high in names.items():
        out = out * each[name](high)
    return jnp.asarray(out[:, 0] if by_response else out, jnp.float32)


def test_what_a_correction_cannot_do_is_refused():
    with pytest.raises(ValueError, match="no correction 'tsi'"):
        losses.corrected(losses.sapo, {"tsi": 2.0})
    with pytest.raises(ValueError, match="geometric must be > 1"):
        losses.corrected(losses.sapo, {"geometric": 0.5})
    for row, names, why in [
        ("online_dpo", {"tis": 2.0}, "weighs no samples of the policy"),
        ("sppo_samples", {"tis": 2.0}, "whichever policy"),
        ("nash_md", {"opsm": 0.1}, "nash_md has none"),
        ("vapo", {"opsm": 0.1}, "the critic of vapo has to learn"),
    ]:
        with pytest.raises(ValueError, match=why):
            corrected(get(row), names)
    assert losses.corrected(losses.sapo, {}) is losses.sapo
