"""SFT and alignment on a new skill, and what each way of doing both forgets:

    python configs/real/forgetting.py [STEPS]

The model in the package writes stories. The new skill is to write them in capitals: demonstrations
are the chosen responses of its pairs in capitals, pairs are both responses in capitals. Every way
starts from the same weights and trains all of them, STEPS steps of 32 in each stage. Measured on
held-out data:

* new nll: of the demonstrations, nats per token; accuracy: how often the chosen response is the
  likelier one;
* kept nll: of stories as they were, nats per token; forgot: its difference from the start;
* KL on new: KL(start || model) per token of the demonstrations, which predicts what is forgotten
  ("RL's Razor", arXiv 2509.04259).
"""

import gzip
import json
import sys
import tempfile
from collections.abc import Callable

import jax
import optax
from flax import nnx

import jalign
from jalign import embedded
from jalign.models import merge
from jalign.optim.online_merging import online_merging
from jalign.run.policy import Policy

Rows = list[dict[str, object]]
SFT_RATE, PREFERENCE_RATE = 1e-3, 1e-4


def read(path: object, limit: int) -> Rows:
    with gzip.open(str(path), "rt") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(limit), strict=False)]


def pairs_in_capitals(split: str, limit: int) -> Rows:
    return [
        {"prompt": r["prompt"], **{n: str(r[n]).upper() for n in ("chosen", "rejected")}}
        for r in read(embedded.pairs(split), limit)
    ]


PAIRS, HELD = pairs_in_capitals("train", 1500), pairs_in_capitals("test", 200)
STORIES: Rows = [
    {"prompt": r["prompt"], "completion": " " + " ".join(r["completions"])}
    for r in read(embedded.steps("test"), 60)
]


def demonstrations(pairs: Rows) -> Rows:
    return [{"prompt": r["prompt"], "completion": r["chosen"]} for r in pairs]


def start() -> Policy:
    return jalign.load("embedded")


def trained(
    algorithm: str, policy: Policy, data: Rows, optimizer: optax.GradientTransformation, steps: int
) -> Policy:
    run = jalign.offline(algorithm, policy, data=data, holdout=0)
    with tempfile.TemporaryDirectory() as out:
        run.fit(steps=steps, optimizer=optimizer, out=out, console=None)
        return run.policy


def weights(policy: Policy) -> nnx.State:
    return policy.functional()[1]


def with_change(change: nnx.State) -> Policy:
    policy = start()
    nnx.update(
        policy.decoder, jax.tree.map(lambda w, d: w + d.astype(w.dtype), weights(policy), change)
    )
    return policy


def ways(steps: int) -> dict[str, Callable[[], Policy]]:
    base = weights(start())
    shown = demonstrations(PAIRS)
    models: dict[str, Policy] = {}

    def once(name: str, make: Callable[[], Policy]) -> Policy:
        if name not in models:
            models[name] = make()
        return models[name]

    def sft(loss: str = "sft") -> Policy:
        return once(loss, lambda: trained(loss, start(), shown, optax.adamw(SFT_RATE), steps))

    def dpo(policy: Policy, optimizer: optax.GradientTransformation | None = None) -> Policy:
        return trained("dpo", policy, PAIRS, optimizer or optax.adamw(PREFERENCE_RATE), steps)

    def paft() -> Policy:
        changes = [
            jax.tree.map(lambda x, b: x - b, weights(p), base) for p in (sft(), dpo(start()))
        ]
        return with_change(merge.ties(changes, density=0.5))

    def merged(method: str, alpha: float) -> Policy:
        inner = optax.adamw(PREFERENCE_RATE)
        return dpo(sft(), online_merging(inner, base, alpha=alpha, method=method))  # type: ignore[arg-type]

    return {
        "start": start,
        "sft": sft,
        "sft, then dpo": lambda: dpo(sft()),
        "dft": lambda: sft("dft"),
        "dft, then dpo": lambda: dpo(sft("dft")),
        "orpo": lambda: trained("orpo", start(), PAIRS, optax.adamw(SFT_RATE), steps),
        "paft (sft and dpo, ties)": paft,
        "sft, then dpo, OnDARE": lambda: merged("dare", 1e-3),
        "sft, then dpo, OnTIES": lambda: merged("ties", 1e-3),
    }


def measured(policy: Policy) -> tuple[float, float, float, float]:
    """New nll, accuracy, kept nll, KL(start || model) on the new task."""
    new = demonstrations(HELD)
    on_pairs = jalign.offline("orpo", policy, data=HELD, eval=HELD).evaluate()
    kept = jalign.offline("sft", policy, data=STORIES, eval=STORIES).evaluate()
    # the loss of distillation from the start is the KL, token by token
    apart = jalign.offline(
        "gkd_forward", policy, data=new, eval=new, reference="embedded"
    ).evaluate()
    return on_pairs["nll_loss"], on_pairs["logps/accuracies"], kept["loss"], apart["loss"]


def main(steps: int = 60) -> None:
    print("| trained by | new nll | accuracy | kept nll | forgot | KL on new |")
    print("|---|---|---|---|---|---|")
    first = None
    for name, make in ways(steps).items():
        new, accuracy, kept, apart = measured(make())
        first = kept if first is None else first
        print(f"| {name} | {new:.3f} | {accuracy:.3f} | {kept:.3f} | ", end="")
        print(f"{kept - first:+.3f} | {apart:.3f} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
