"""Rows of the catalogue on preference games of a few responses, as exact expectations.

    python configs/real/nash_games.py [nash_games.svg]

The policy is a table of logits, the batch of a step holds every response (or pair of responses)
with its probability as weight, and the training step, its moving references and the losses are
jalign's. A step is one of mirror descent: policy gradients follow the natural gradient at step size
ETA, regressions go to their exact minimum.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jalign.algorithms import get
from jalign.core import Algorithm, Frozen, TrainState
from jalign.layout import Batch
from jalign.train.step import create_state, make_train_step, with_reference

ETA, TAU = 0.5, 0.1
CYCLE = np.array([[0.5, 0.8, 0.1], [0.2, 0.5, 0.9], [0.9, 0.1, 0.5]])
CYCLE_START = np.log([0.7, 0.2, 0.1])
SHOWN = (10, 50, 100, 400)


class Method(NamedTuple):
    """A row with its hyper-parameters.

    Attributes:
      rate: of the natural gradient. 1/2 takes a regression of responses to its minimum, 1/4 one of
        pairs.
    """

    row: str
    hyper: dict[str, float]
    rate: float
    what: str


INPO = {"eta": 1 / ETA, "tau_ratio": ETA * TAU, "last_sync_steps": 1}
METHODS = {
    "plain self-play": Method(
        "sppo_samples", {"beta": 1 / ETA, "ref_sync_steps": 1}, 1 / 2, "cycles"
    ),
    "Nash-MD": Method("nash_md", {"tau": TAU}, ETA, "regularized"),
    "INPO": Method("inpo", INPO, 1 / 4, "regularized"),
    "EGPO": Method("egpo", {"beta": TAU}, ETA * TAU / 4, "regularized"),
    "Nash-MP": Method(
        "nash_mp", {"beta": TAU, "eta": 10.0, "last_mixup_alpha": 0.5}, ETA, "regularized"
    ),
    "OMWU": Method("omwu", {"eta": ETA, "ref_sync_steps": 1}, 1 / 4, "optimistic"),
    "MPO, magnet every 40": Method("mpo", {"tau": TAU, "ref_sync_steps": 40}, ETA, "magnet"),
    "Nash-MD, reset every 40": Method("nash_md", {"tau": TAU, "ref_sync_steps": 40}, ETA, "magnet"),
    "COMAL, reset every 40": Method("comal", INPO | {"ref_sync_steps": 40}, 1 / 4, "magnet"),
}


def duality_gap(prefer: Array, policy: Array) -> Array:
    """max over p of P(p > policy) minus min over q of P(policy > q); 0 at the equilibrium."""
    return (prefer @ policy).max() - (policy @ prefer).min()


def natural_gradient(rate: float) -> optax.GradientTransformation:
    """The gradient by the logits over the policy: that of the expectation without its weights."""

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        step = gradient["logits"] / jax.nn.softmax(params["logits"])
        return {"logits": -rate * (step - step.mean())}, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def apply(
    params: Any, base: Any, layout: Array, outputs: Any, key: Any = None, **options: Any
) -> dict[str, Array]:
    """The model: log-probs of the responses [B, K] in `layout`, as responses of one token."""
    del base, outputs, key, options
    return {"token_logps": jax.nn.log_softmax(params["logits"])[layout][..., None]}


def expectation(row: Algorithm, prefer: Array, state: TrainState, frozen: Frozen) -> Batch:
    """Every example of a rollout with its probability, and exact win rates."""
    models = with_reference(frozen, state)
    policy = jax.nn.softmax(state.params["logits"])
    rates = prefer @ _opponent(row, state, models)
    n = len(policy)
    if row.format.name == "samples":
        responses = jnp.arange(n)[:, None]
        # sppo_samples compares with the policy that sampled
        extras = {"weight": policy, "win_prob": rates[:, None]}
    else:
        responses = jnp.stack([jnp.repeat(jnp.arange(n), n), jnp.tile(jnp.arange(n), n)], -1)
        weight = policy[responses].prod(-1)
        if row.name == "omwu":
            rates = 2 * prefer @ policy - rates
        if "chosen_win_rate" in row.inputs():
            chosen, rejected = rates[responses].T
            extras = {"weight": weight, "chosen_win_rate": chosen, "rejected_win_rate": rejected}
        else:  # a label: the first is preferred as often as the preference says
            extras = {"weight": weight * prefer[responses[:, 0], responses[:, 1]]}
    return Batch(responses, jnp.ones((*responses.shape, 1), bool), extras)


def _opponent(row: Algorithm, state: TrainState, models: Frozen) -> Array:
    """The distribution of the responses that the others are compared with."""
    assert row.experience is not None
    logits = state.params["logits"]
    if row.experience.opponent == "last":
        logits = models.last["logits"]
    if row.experience.opponent == "mixture":
        share = ETA * TAU  # the share with which Nash-MD is mirror descent
        logits = (1 - share) * jax.nn.log_softmax(logits) + share * models.ref["logits"]
    return jax.nn.softmax(logits)


def gaps(method: Method, prefer: Array, start: Array, updates: int = 400) -> Array:
    """[updates] duality gaps of the policy after each update.

    Args:
      prefer: [A, A] the probability that a response is preferred to another.
      start: [A] log-probs of the first policy, which is the reference.
    """
    row = get(method.row).with_hyper(**method.hyper)
    optimizer, params = natural_gradient(method.rate), {"logits": jnp.asarray(start)}
    step, frozen = make_train_step(row, apply, optimizer), Frozen(None, params)

    def one(state: TrainState, _: None) -> tuple[TrainState, Array]:
        state, _ = step(state, frozen, expectation(row, prefer, state, frozen))
        return state, duality_gap(prefer, jax.nn.softmax(state.params["logits"]))

    first = create_state(params, optimizer, row, jax.random.key(0))
    calls = row.calls_per_update
    return jax.lax.scan(one, first, length=updates * calls)[1][calls - 1 :: calls]


def random_games(count: int, responses: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Preferences with cycles and first policies: [count, A, A], [count, A]."""
    prefer, start = [], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        strength = 1.5 * rng.normal(size=(responses, responses))
        prefer.append(1 / (1 + np.exp(strength.T - strength)))
        start.append(np.log(rng.dirichlet(np.ones(responses)) + 1e-3))
    return np.stack(prefer), np.stack(start)


def cyclic(method: Method, updates: int = 400) -> np.ndarray:
    """Duality gaps on the cyclic game of three responses."""
    return np.asarray(jax.jit(lambda p, s: gaps(method, p, s, updates))(CYCLE, CYCLE_START))


def solved(method: Method, games: tuple[np.ndarray, np.ndarray], below: float = 0.02) -> float:
    """The share of games whose last policy has a duality gap below a bound."""
    last = jax.jit(jax.vmap(lambda p, s: gaps(method, p, s)[-1]))(*games)
    return float((np.asarray(last) < below).mean())


COLORS = ("#999999", "#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#222222",
          "#ee8866")  # fmt: skip


def draw(curves: dict[str, np.ndarray]) -> str:
    """Duality gaps over steps as SVG, on a logarithmic scale from 1e-6 to 1."""
    x = lambda step: 50 + 1.2 * step  # noqa: E731
    y = lambda gap: 20 - 45 * math.log10(max(float(gap), 1e-6))  # noqa: E731
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 330" font-size="12">']
    parts.append('<rect width="740" height="330" fill="white"/>')
    for power in range(-6, 1):
        at = y(10.0**power)
        parts.append(f'<path d="M50 {at}H530" stroke="#dddddd"/>')
        parts.append(f'<text x="44" y="{at + 4}" text-anchor="end">1e{power}</text>')
    for step in (0, 100, 200, 300, 400):
        parts.append(f'<text x="{x(step)}" y="310" text-anchor="middle">{step}</text>')
    for i, ((name, gaps_of), color) in enumerate(zip(curves.items(), COLORS, strict=True)):
        path = " ".join(f"{x(t + 1):.0f},{y(gap):.1f}" for t, gap in enumerate(gaps_of))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts.append(f'<text x="545" y="{40 + 20 * i}" fill="{color}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    games, curves = random_games(50), {}
    print(f"| method | row | {' | '.join(f'step {t}' for t in SHOWN)} | 50 games |")
    print(f"|{'---|' * (len(SHOWN) + 3)}")
    for name, method in METHODS.items():
        curve = curves[name] = cyclic(method)
        cells = " | ".join(f"{curve[t - 1]:.2g}" for t in SHOWN)
        print(f"| {name} | `{method.row}` | {cells} | {solved(method, games):.0%} |", flush=True)
    for path in sys.argv[1:]:
        Path(path).write_text(draw(curves))
    print()
    print("| steps between moves | `mpo` | `nash_md` |\n|---|---|---|")
    for every in (0, 10, 20, 40, 80):
        rows = [
            cyclic(Method(row, {"tau": TAU, "ref_sync_steps": every}, ETA, "magnet"))[-1]
            for row in ("mpo", "nash_md")
        ]
        print(f"| {every or 'never'} | {rows[0]:.2g} | {rows[1]:.2g} |", flush=True)


if __name__ == "__main__":
    main()
