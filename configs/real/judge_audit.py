"""How far a judge agrees with people, and what else moves it: position, length.

    python configs/real/judge_audit.py OUT --data NAME=FILE .. --judge NAME=JUDGE .. [--limit N]

FILE holds pairs that people compared: JSON Lines with `prompt`, `chosen`, `rejected` (also .gz), or
the JSON of LLMBar (https://github.com/princeton-nlp/LLMBar), `input`, `output_1`, `output_2` and
`label`. JUDGE is `length` (the longer response wins), the folder of a model, which is asked as
`jalign label` asks it, or published verdicts in LLMBar's form (a .json, in whose name DATA stands
for the name of the data). Every pair is judged in both orders. The verdicts stay in
OUT/JUDGE.DATA.json; those that are there are not asked for again.

* agreement: share of verdicts that are the label, both orders, with its interval over pairs;
* kappa: Cohen's, of the verdict of both orders together;
* first slot: mean P(the first response wins) - 1/2;
* consistent: pairs with the same verdict in both orders;
* longer: share of verdicts, and of people's, that prefer the longer response;
* slope: log-odds per standard deviation of the difference in length, beside the label.
"""

import argparse
import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jalign.eval import metrics
from jalign.feedback.common import loaded_judge
from jalign.options import LanguageModelConfig
from jalign.rewards.label import text_of
from jalign.rewards.preference import PreferenceFn
from jalign.rewards.rlaif import Comparison


class Pairs(NamedTuple):
    """Prompts, two responses each, and people's verdict: 1 for the first response, 0."""

    prompts: list[str]
    a: list[str]
    b: list[str]
    human: list[float]


def read(path: str, limit: int) -> Pairs:
    """The first pairs of a file. The side of the chosen response is drawn by a hash."""
    data = gzip.open(path, "rt") if path.endswith(".gz") else open(path)  # noqa: SIM115
    with data:
        text = data.read()
    rows = json.loads(text) if text.startswith("[") else map(json.loads, text.splitlines())
    pairs = Pairs([], [], [], [])
    for row in list(rows)[: limit or None]:
        if "label" in row:
            prompt, sides, first = (
                row["input"],
                (row["output_1"], row["output_2"]),
                row["label"] == 1,
            )
        else:
            prompt = text_of(row["prompt"])
            first = zlib.crc32(json.dumps(row, sort_keys=True).encode()) % 2 == 0
            sides = row["chosen"], row["rejected"]
            sides = sides if first else sides[::-1]
        for column, value in zip(pairs, (prompt, *sides, float(first)), strict=True):
            column.append(value)
    return pairs


def by_length(prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> list[float | None]:
    return [0.5 + 0.5 * float(np.sign(len(x) - len(y))) for x, y in zip(a, b, strict=True)]


def published(path: str, count: int) -> dict[str, list[float]]:
    """P(A is preferred) in both orders, from LLMBar's results; a verdict for neither is 1/2."""
    wins = {"1": 1.0, "2": 0.0}
    orders = [row["results"][0] for row in json.loads(Path(path).read_text())[:count]]
    keys = {"first": "swap = False", "second": "swap = True"}
    return {n: [wins.get(row[key]["winner"], 0.5) for row in orders] for n, key in keys.items()}


def ask(prefer: PreferenceFn, pairs: Pairs, size: int = 16) -> dict[str, list[float]]:
    """P(A is preferred) in both orders; a pair without an answer is an error."""
    rows = list(zip(*pairs[:3], strict=True))
    # pairs of one length share a batch: it is padded to the longest
    order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))
    probs = np.full((2, len(rows)), np.nan)
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        prompts, a, b = ([rows[i][column] for i in batch] for column in range(3))
        answers = prefer(prompts * 2, a + b, b + a)
        if None in answers:
            raise ValueError("a pair got no answer: is it too long for the judge?")
        first, second = np.array(answers, np.float64).reshape(2, -1)
        probs[:, batch] = first, 1 - second
        print(f"  {start + len(batch)} of {len(order)} pairs", flush=True)
    return {"first": probs[0].tolist(), "second": probs[1].tolist()}


def row(
    judge: str, data: str, pairs: Pairs, first: Sequence[float], second: Sequence[float]
) -> str:
    """One line of the table."""
    human = np.array(pairs.human)
    lengths = [np.array([len(x) for x in side]) for side in (pairs.a, pairs.b)]
    preference = metrics.preference(first, second)
    right = [np.where(np.equal(p, 0.5), 0.5, np.greater(p, 0.5) == human) for p in (first, second)]
    agreement = metrics.bootstrap(np.mean(right, 0))
    kappa = metrics.agreement(0.5 + 0.5 * np.sign(preference - 0.5), human).kappa
    position = metrics.position_bias(first, second)
    people = metrics.length_bias(human, *lengths).prefers_longer.value
    try:
        bias = metrics.length_bias(preference, *lengths, human=human)
        longer, slope = f"{bias.prefers_longer.value:.2f}", shown(bias.slope)
    except ValueError:  # a rule of length
        longer, slope = "1.00", "infinite"
    cells = (
        judge,
        f"{data} ({len(human)})",
        shown(agreement),
        shown(kappa),
        shown(position.first_slot),
        f"{position.consistent.value:.2f}",
        f"{longer} ({people:.2f})",
        slope,
    )
    return f"| {' | '.join(cells)} |"


def shown(x: metrics.Estimate) -> str:
    return f"{x.value:.2f} [{x.low:.2f}, {x.high:.2f}]"


def cached(path: Path, judge: Callable[[], dict[str, list[float]]]) -> dict[str, list[float]]:
    if not path.exists():
        result = judge()
        path.write_text(json.dumps(result))
    return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--judge", nargs="+", default=["length=length"])
    parser.add_argument("--limit", type=int, default=0, help="first pairs of each file; 0: all")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = {name: read(path, args.limit) for name, path in (x.split("=", 1) for x in args.data)}
    rows = []
    for name, judge in (x.split("=", 1) for x in args.judge):
        for key, pairs in data.items():
            print(f"{name} judges {key}", flush=True)
            path = args.out / f"{name}.{key}.json"
            if judge == "length":
                verdicts = cached(path, lambda p=pairs: ask(by_length, p, len(p.prompts)))
            elif judge.endswith(".json"):
                file = judge.replace("DATA", key)
                verdicts = cached(path, lambda p=pairs, f=file: published(f, len(p.prompts)))
            else:
                with loaded_judge(LanguageModelConfig(model=judge)) as model:
                    prefer = Comparison(model)
                    verdicts = cached(path, lambda p=pairs, f=prefer: ask(f, p))
            rows.append(row(name, key, pairs, verdicts["first"], verdicts["second"]))
    columns = ("judge", "data (pairs)", "agreement", "kappa", "first slot", "consistent")
    columns += ("longer (people)", "slope")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * 8}\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
