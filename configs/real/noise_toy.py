"""Which loss survives which wrong labels, where the truth is known: a linear Bradley-Terry model.

    python configs/real/noise_toy.py [--seeds 6]

1,500 labels of the difference of two responses with 20 features; log p - log p_ref of a response is
linear in them, so every row of the catalogue trains by jalign's own step (full batches, SGD).
Printed: accuracy against the true preference on 4,000 new pairs, mean over seeds, and how reliable
`re_po` holds the labels to be. Pairs first; then single responses with thumbs, labeled by the same
model.
"""

import argparse
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jalign.algorithms import get
from jalign.core import Frozen
from jalign.layout import Batch, Layout
from jalign.train.step import create_state, make_train_step

N, D, STEPS = 1500, 20, 1500


class Labels(NamedTuple):
    x: np.ndarray  # [n, d], the features of the chosen response minus those of the rejected one
    annotator: np.ndarray  # [n]
    share: float  # of wrong labels
    new: np.ndarray  # [4000, d]
    truth: np.ndarray  # [4000]


def labels(kind: str, share: float, seed: int) -> Labels:
    """Labels by sigmoid(2 x . w), some of them wrong: uniform; annotator: three of ten invert 90 %;
    spurious: labels that follow feature 0; tail: the clearest ones.
    """
    rng = np.random.default_rng(seed)
    w = rng.normal(size=D) / np.sqrt(D) * 2
    x = rng.normal(size=(N, D))
    margin = 2 * x @ w
    y = np.where(rng.random(N) < 1 / (1 + np.exp(-margin)), 1.0, -1.0)
    new = rng.normal(size=(4000, D))
    who = rng.integers(10, size=N)
    wrong = np.zeros(N, bool)
    if kind == "uniform":
        wrong = rng.random(N) < share
    elif kind == "annotator":
        wrong = (who < 3) & (rng.random(N) < 0.9)
    elif kind == "spurious":
        wrong = (rng.random(N) < share) & (np.sign(x[:, 0]) != y)
    elif kind == "tail":
        wrong = np.abs(margin) > np.quantile(np.abs(margin), 1 - share)
    signed = x * (y * np.where(wrong, -1, 1))[:, None]
    return Labels(signed, who, float(wrong.mean()), new, np.sign(new @ w))


def linear(params, features, layout, outputs, key=None, **options):
    """log p of every response, as one token."""
    return {"token_logps": (features @ params)[..., None]}


def batch(data: Labels, form: str) -> tuple[Batch, np.ndarray]:
    """The labels as pairs, or as single responses with thumbs; and [n, 2, d] features."""
    if form == "pairs":
        features = np.stack([data.x, np.zeros_like(data.x)], 1)
        extras = {"annotator": data.annotator.astype(np.int32)}
        refs = ("ref_chosen_logps", "ref_rejected_logps")
    else:  # half of the labels are thumbs down; the second response belongs to another prompt
        good = np.arange(N) % 2 == 0
        own = np.where(good[:, None], data.x, -data.x)
        features = np.stack([own, np.roll(own, 1, 0)], 1)
        extras = {"annotator": data.annotator.astype(np.int32), "label": good}
        refs = ("ref_logps", "ref_kl_logps")
    extras |= {name: np.zeros(N, np.float32) for name in refs}
    none = np.zeros((N, 1), np.int32)
    return Batch(Layout(none, none, none, none, none), np.ones((N, 2, 1), bool), extras), features


@cache
def trainer(name: str, rate: float, hyper: tuple):
    row, optimizer = get(name), optax.sgd(rate)
    step = make_train_step(row, linear, optimizer, **dict(hyper))

    @jax.jit
    def train(frozen: Frozen, data: Batch):
        state = create_state(jnp.zeros(D), optimizer, row, jax.random.key(0), **dict(hyper))
        return jax.lax.fori_loop(0, STEPS, lambda i, s: step(s, frozen, data)[0], state)

    return train


def fitted(name: str, data: Labels, rate: float, one: bool, **hyper: float) -> tuple[float, float]:
    """Accuracy, and the reliability of the first three annotators (of all, where they are one)."""
    given, features = batch(data, "binary" if get(name).format.name == "binary" else "pairs")
    if one:
        given.extras["annotator"][:] = 0
    frozen = Frozen(jnp.asarray(features, jnp.float32), None)
    state = trainer(name, rate, tuple(sorted(hyper.items())))(frozen, given)
    accuracy = np.mean(np.sign(data.new @ np.asarray(state.params)) == data.truth)
    eta = np.asarray(state.carry.get("eta", np.full(3, np.nan)))
    return float(accuracy), float(eta[0] if one else eta[:3].mean())


SETTINGS = {
    "none": ("none", 0.0),
    "uniform 20 %": ("uniform", 0.2),
    "uniform 40 %": ("uniform", 0.4),
    "3 of 10 annotators invert 90 %": ("annotator", 0.27),
    "40 % of labels follow a spurious feature": ("spurious", 0.4),
    "the clearest 20 % inverted": ("tail", 0.2),
}
# learning rates at which every loss has the slope of DPO at a margin of 0
PAIRS = {
    "dpo": ("dpo", 0.3, True),
    "robust_dpo": ("robust_dpo", 0.3, True),
    "dr_dpo": ("dr_dpo", 0.3, True),
    "holder_dpo": ("holder_dpo", 0.4, True),
    "re_po, one annotator": ("re_po", 0.3, True),
    "re_po": ("re_po", 0.3, False),
}
THUMBS = {
    "kto": ("kto", 0.6, True),
    "robust_kto, one annotator": ("robust_kto", 0.6, True),
    "robust_kto": ("robust_kto", 0.6, False),
    "bco": ("bco", 0.3, True),
    "robust_bco, one annotator": ("robust_bco", 0.3, True),
    "robust_bco": ("robust_bco", 0.3, False),
}


def main(seeds: int) -> None:
    for methods in (PAIRS, THUMBS):
        print("| wrong labels |", " | ".join(methods), "|")
        print("|" + "---|" * (len(methods) + 1))
        for title, (kind, share) in SETTINGS.items():
            cells = []
            for name, rate, one in methods.values():
                results = []
                for seed in range(seeds):
                    data = labels(kind, share, seed)
                    known = {"label_smoothing": max(share, 0.01)} if name == "robust_dpo" else {}
                    fit = partial(fitted, name, data, rate, one)
                    results.append(fit(beta=1.0, **known))
                accuracy, eta = np.mean(results, 0)
                cells.append(f"{accuracy:.3f}" + (f" ({eta:.2f})" if np.isfinite(eta) else ""))
            print(f"| {title} |", " | ".join(cells), "|", flush=True)
        print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    main(parser.parse_args().seeds)
