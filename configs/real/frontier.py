"""Reward against KL of many algorithms: happier stories, the same number of samples for each.

    python configs/real/frontier.py MODEL_FOLDER OPENINGS.jsonl.gz OUT [METHOD ...]

The policy continues the opening of a story; the reward is the sentiment (VADER, in [-1, 1]) of what
it wrote. Every method gets 32 responses per step (`responses` of them to each opening), at two
weights of what holds it to the start, each run `jalign train configs/real/stories15m_online.yaml`
in a process of its own. Offline DPO and the reward model learn from as many responses, sampled from
the start and ordered by the same reward; "rm" is the reward model in the place of the lexicon. Then
all policies answer the held-out openings:

* reward: mean sentiment of the responses, its standard error in brackets;
* KL: log p(response) - log p_start(response), nats per response, mean;
* best-of-n: expected reward of the best of n of 8 responses of the start, KL = log n - (n - 1)/n.

It resumes where it was stopped: a finished point is not computed again. OUT/points.jsonl is the
record; the table is printed, and OUT/frontier.svg drawn where matplotlib is installed.
"""

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _process import train

from jalign.advantages import best_of_n_kl, expected_best_of_n
from jalign.config.read import read_config
from jalign.core import Frozen
from jalign.data.write import write
from jalign.models.functional import policy_of
from jalign.rollout.groups import respond
from jalign.rollout.types import Rollout
from jalign.run import data as build_data
from jalign.run import folder as runs
from jalign.run import rollouts as build_online
from jalign.run.decoders import Source
from jalign.run.devices import mesh_of
from jalign.run.policy import eos_ids, tokenizer_of
from jalign.run.prompts import PromptTable
from jalign.run.rewards import compose
from jalign.run.roles import load_roles
from jalign.train.micro_batches import MicroBatchPacker
from jalign.train.scoring import ResponseScorer

CONFIG = str(Path(__file__).with_name("stories15m_online.yaml"))
PAIRS = str(Path(__file__).with_name("stories15m_cpu.yaml"))
STEPS, PER_STEP, RATE = 32, 32, "5e-5"  # as in CONFIG
OFFLINE = ("--data.limit", "0", "--optim.schedule", "constant", "--optim.warmup_steps", "5")


@dataclass(frozen=True)
class Method:
    """One line of the frontier: an algorithm, and the number that trades reward against KL."""

    algorithm: str
    responses: int
    knob: str
    weights: tuple[float, ...]
    seeds: int = 1
    more: tuple[str, ...] = ()


METHODS = {
    "ppo": Method("ppo", 1, "algorithm.kl_coef", (0.02, 0.1), 3),
    "reinforce": Method("reinforce", 1, "algorithm.kl_coef", (0.02, 0.1)),
    "rloo-2": Method("rloo", 2, "algorithm.kl_coef", (0.02, 0.1), 3),
    "rloo-4": Method("rloo", 4, "algorithm.kl_coef", (0.02, 0.1), 3),
    "grpo": Method("grpo", 4, "algorithm.kl_k3_coef", (0.1, 0.3), 3),
    "dr_grpo": Method("dr_grpo", 4, "algorithm.kl_k3_coef", (0.02, 0.1)),
    # nothing but its learning rate holds RAFT to the start: at 5e-5 it collapses
    "raft": Method("raft", 4, "optim.learning_rate", (5e-6, 1e-5, 2e-5)),
    "online_dpo": Method("online_dpo", 2, "algorithm.beta", (0.2, 0.6), 3),
    "dpo": Method("dpo", 2, "algorithm.beta", (0.1, 0.3), 3),
    "xpo": Method("xpo", 2, "algorithm.beta", (0.2, 0.6)),
    "nash_md": Method(
        "nash_md", 2, "algorithm.tau", (0.02, 0.1), 1, ("--reward.temperature", "0.2")
    ),
    "sppo": Method(
        "sppo_samples",
        4,
        "algorithm.beta",
        (0.02, 0.1),
        1,
        # 32 steps are half an iteration: samples of the policy, the reference is its start
        ("--reward.temperature", "0.2", "--rollout.prompts", "8"),
    ),
    "rm-ppo": Method("ppo", 1, "algorithm.kl_coef", (0.1,)),
    "rm-rloo-4": Method("rloo", 4, "algorithm.kl_coef", (0.1,)),
    "rm-grpo": Method("grpo", 4, "algorithm.kl_k3_coef", (0.3,)),
    "rm-online_dpo": Method("online_dpo", 2, "algorithm.beta", (0.6,)),
}


class Task:
    """The start, the openings, and what is asked of a policy in the end."""

    def __init__(self, model: str, openings: str, out: Path):
        self.model, self.openings, self.out = model, openings, out
        given = ["--model.path", model, "--data.train", openings, "--out", str(out)]
        self.config = read_config(["--config", CONFIG, *given])
        self.mesh = mesh_of(self.config.mesh)
        self.start = load_roles(self.config, Source(self.mesh), tokenizer_of(self.config))
        rows = build_data.all_rows(self.config)
        prompts, held = build_data.examples_of(self.config, self.start.tokenizer, rows)
        assert held is not None
        self.prompts, self.held = prompts, held
        self.reward = compose(self.config.reward, self.config.algorithm, self.mesh)
        self.tables = [
            PromptTable(examples, of, self.start.tokenizer)
            for examples, of in zip((prompts, held), rows, strict=True)
        ]
        spec, longest = build_online.spec_of(self.config), int(held.lengths.prompt_len.max())
        packer = MicroBatchPacker(
            self.mesh, longest, spec.response_len, spec.max_tokens, spec.multiple
        )
        self.scorer = ResponseScorer(self.start.apply, spec.temperature, packer)

    def answered(
        self, params: Any, table: PromptTable, count: int, responses: int
    ) -> tuple[Rollout, np.ndarray]:
        """Responses of a policy to the first openings, and their rewards."""
        eos = eos_ids(self.start.path, self.start.tokenizer)
        settings = build_online.settings_of(self.config, eos)
        settings = replace(settings, responses=responses)
        policy, prompts = self.start.sampling_weights(params), [table[i].ids for i in range(count)]
        rollout = respond(policy, prompts, settings, jax.random.key(7), batch_size=64)
        scores = self.reward(table, range(count), rollout).scores
        assert scores is not None
        return rollout, scores

    def measured(self, params: Any) -> dict[str, float]:
        """Reward, KL to the start and length of a policy's answers to the held-out openings."""
        table, count = self.tables[1], len(self.held)
        rollout, scores = self.answered(params, table, count, 1)
        names, state = ("old_token_logps", "ref_token_logps"), self.start.params
        frozen = Frozen(self.start.base, state)
        logps = self.scorer(rollout, names, params, frozen)
        kl = (logps["old_token_logps"] - logps["ref_token_logps"]).sum((1, 2))
        return {
            "reward": float(scores.mean()),
            "error": float(scores.std() / count**0.5),
            "kl": float(kl.mean()),
            "length": float(rollout.lengths.mean()),
        }

    def pairs(self) -> str:
        """A file of pairs from as many samples of the start as an online run takes."""
        file = self.out / "pairs.jsonl"
        if not file.exists():
            table, count = self.tables[0], STEPS * PER_STEP // 2
            rollout, scores = self.answered(self.start.params, table, count, 2)
            made = []
            for i, (first, second) in enumerate(scores):
                if first != second:
                    written = [table.decode(i, rollout.response(i, k)) for k in range(2)]
                    chosen, rejected = written if first > second else reversed(written)
                    row = {"prompt": table[i].text, "chosen": chosen, "rejected": rejected}
                    made.append(row)
            write(str(file), made)
        return str(file)

    def reward_model(self) -> str:
        """The folder of a reward model of those pairs."""
        out = self.out / "reward_model"
        common = ["--model.path", self.model, "--data.train", self.pairs(), "--data.holdout", "100"]
        given = ["--algorithm.name", "bradley_terry", "--optim.learning_rate", "5e-5"]
        train(PAIRS, out, *common, *given, *OFFLINE, "--steps", "120")
        return str(out)

    def point(self, name: str, weight: float, seed: int) -> dict[str, Any]:
        """Train a policy and look at it."""
        method, folder = METHODS[name], self.out / f"{name}-{weight:g}-{seed}"
        given = ["--model.path", self.model, "--algorithm.name", method.algorithm]
        given += [f"--{method.knob}", f"{weight:g}", "--seed", str(seed), *method.more]
        if name == "dpo":
            given += ["--data.train", self.pairs(), *OFFLINE, "--data.holdout", "0"]
            given += ["--batch_size", str(PER_STEP // 2), "--steps", str(STEPS)]
            given += ["--optim.learning_rate", RATE]
        else:
            given += ["--data.train", self.openings, "--rollout.responses", str(method.responses)]
            given += ["--batch_size", str(PER_STEP // method.responses), "--data.eval_limit", "8"]
        if name.startswith("rm-"):
            given += ["--reward.model", self.reward_model()]
            given += ["--reward.functions", "{}"]
        cost = train(PAIRS if name == "dpo" else CONFIG, folder, *given)
        state = runs.newest(str(folder))[2]
        shutil.rmtree(folder / "checkpoints")  # of dozens of runs
        found = self.measured(policy_of(state.params))
        return {"method": name, "weight": weight, "seed": seed} | cost | found

    def best_of_n(self) -> list[dict[str, Any]]:
        """The start, and the best of its responses."""
        _, scores = self.answered(self.start.params, self.tables[1], len(self.held), 8)
        rows = []
        for n in (1, 2, 4, 8):
            best = np.asarray(expected_best_of_n(scores, np.isfinite(scores), n=n))
            error = float(best.std() / len(best) ** 0.5)
            point = {"kl": float(best_of_n_kl(n)), "reward": float(best.mean()), "error": error}
            rows.append({"method": "best-of-n", "weight": n, "seed": 0} | point)
        return rows


def main(model: str, openings: str, out: str, *chosen: str) -> None:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "points.jsonl"
    points = [json.loads(x) for x in record.read_text().splitlines()] if record.exists() else []
    task: Task | None = None

    def keep(*new: dict[str, Any]) -> None:
        points.extend(new)
        with record.open("a") as file:
            file.writelines(json.dumps(p) + "\n" for p in new)

    names = chosen or tuple(METHODS)
    wanted = [  # every method once, then at its other weight, then with other seeds
        (name, METHODS[name].weights[i], seed)
        for seed in range(max(m.seeds for m in METHODS.values()))
        for i in range(max(len(m.weights) for m in METHODS.values()))
        for name in names
        if seed < METHODS[name].seeds and i < len(METHODS[name].weights)
    ]
    there = {(p["method"], p["weight"], p["seed"]) for p in points}
    for name, weight, seed in wanted:
        if (name, weight, seed) not in there:
            task = task or Task(model, openings, folder)
            with jax.set_mesh(task.mesh):
                keep(task.point(name, weight, seed))
    if not any(p["method"] == "best-of-n" for p in points):
        task = task or Task(model, openings, folder)
        with jax.set_mesh(task.mesh):
            keep(*task.best_of_n())
    show(points)
    draw(points, folder / "frontier.svg")


def show(points: list[dict[str, Any]]) -> None:
    print("| method | weight | seeds | reward | KL | tokens | CPU-s | GiB |")
    print("|---|---|---|---|---|---|---|---|")
    for same in by_weight(points):
        mean = {n: np.mean([p[n] for p in same]) for n in same[0] if n != "method"}
        cost = f"{mean['cpu_seconds']:.0f} | {mean['gib']:.2f}" if "gib" in mean else "|"
        length = f"{mean['length']:.1f}" if "length" in mean else ""
        print(
            f"| {same[0]['method']} | {mean['weight']:g} | {len(same)} | {mean['reward']:.3f} "
            f"({error_of(same):.3f}) | {mean['kl']:.2f} | {length} | {cost} |"
        )


def by_weight(points: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The seeds of every method at every weight, a method's weights together."""
    order = {name: i for i, name in enumerate(METHODS)}
    pairs = sorted(
        {(p["method"], p["weight"]) for p in points},
        key=lambda pair: (order.get(pair[0], len(order)), pair[1]),
    )
    return [[p for p in points if (p["method"], p["weight"]) == pair] for pair in pairs]


def error_of(seeds: list[dict[str, Any]]) -> float:
    """Standard error of a mean reward: between seeds, or of one seed between openings."""
    if len(seeds) == 1:
        return seeds[0]["error"]
    return float(np.std([p["reward"] for p in seeds], ddof=1) / len(seeds) ** 0.5)


def draw(points: list[dict[str, Any]], file: Path) -> None:
    """Mean reward over mean KL, the weights of a method joined by a line; seeds as small dots."""
    try:
        from matplotlib import pyplot as plt
    except ImportError:
        print("matplotlib is not installed: no figure", file=sys.stderr)
        return
    figure, axes = plt.subplots(figsize=(9, 6))
    for i, method in enumerate(dict.fromkeys(p["method"] for p in points)):
        same = [p for p in by_weight(points) if p[0]["method"] == method]
        x, y = ([np.mean([p[n] for p in seeds]) for seeds in same] for n in ("kl", "reward"))
        style = "--" if method == "best-of-n" else "-"
        (line,) = axes.plot(x, y, style + "osD^v<>Pp*Xhd"[i % 13], lw=1, label=method)
        seeds = [p for p in points if p["method"] == method]
        x, y = ([p[n] for p in seeds] for n in ("kl", "reward"))
        axes.plot(x, y, ".", ms=3, color=line.get_color())
    axes.set(xscale="symlog", xlabel="KL to the start, nats per response", ylabel="mean sentiment")
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(file, bbox_inches="tight")


if __name__ == "__main__":
    main(*sys.argv[1:])
