"""Two or more models answer the same prompts; a judge or people compare the answers of each pair.

As in Chatbot Arena (Zheng et al. 2023, https://arxiv.org/abs/2306.05685), with every pair judged
on every prompt, in both orders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jalign import store
from jalign.eval.arena import load_judge, sheet
from jalign.eval.arena.agreement import HUMAN, agreement_with_people
from jalign.eval.arena.answers import Answer, answers_of, read_answers
from jalign.eval.arena.entrants import Entrant, entrants_of, short_names
from jalign.eval.arena.judges import ArenaJudge
from jalign.eval.arena.questions import Question, questions_of, read_questions
from jalign.eval.arena.summary import Pair, Summary, summary_of
from jalign.eval.arena.verdicts import Battle, battles_of
from jalign.log import Display
from jalign.options import ArenaConfig, ArenaJudgeConfig
from jalign.rewards.model import RewardModel
from jalign.signatures import did_you_mean

if TYPE_CHECKING:
    from jalign.run.policy import Policy
    from jalign.run.prompts import PromptRow

ANSWERS, VERDICTS, SUMMARY = "answers", "verdicts", "summary.json"

Judge = str | ArenaJudgeConfig | ArenaJudge | RewardModel | Callable[..., Sequence[float | None]]


@dataclass(frozen=True)
class Arena:
    """Answers, verdicts and what they say.

    Attributes:
      answers: name of a model -> its answers.
      battles: names of two models (A, B) -> the verdicts on their answers; empty before any.
      summary: as `summary.summary_of`; empty before any verdict.
      files: what was written for people, the sheet, its page and its key.
    """

    answers: dict[str, list[Answer]]
    battles: dict[Pair, list[Battle]] = field(default_factory=dict)
    summary: Summary = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def arena(
    models: Sequence[str] | Mapping[str, str | Policy],
    prompts: str | Sequence[PromptRow] | None = None,
    judge: Judge | None = None,
    *,
    out: str,
    display: Display | None = None,
    **options: Any,
) -> Arena:
    """Compare models on the same prompts. A killed call continues when it is made again.

    Args:
      models: names as in `ArenaConfig.models`, or short name -> model, also in memory; with
        `verdicts` they may be left out.
      prompts: a file or data set; or rows, texts, lists of messages; None: the held-out prompts of
        the first run.
      judge: what `ArenaJudgeConfig.model` may name, its complete options, a `RewardModel`, a reward
        function `(prompts, responses, columns by name) -> scores`, or an object that compares
        (`PairJudge`, `ScoreJudge`). None with `human` or `verdicts`.
      out: folder for answers, verdicts and summary.
      options: further fields of `ArenaConfig`.

    Raises:
      ValueError: fewer than two models, no prompts, no judge, an option that does not apply, or a
        folder with answers or verdicts of other models, prompts or options.

    >>> result = arena(["runs/dpo", "embedded"], judge="runs/reward", out="arena")  # doctest: +SKIP
    >>> result.summary["pairs"][0]["win_rate"]  # doctest: +SKIP
    {'value': 0.83, 'low': 0.74, 'high': 0.91}
    """
    given = judge if isinstance(judge, ArenaJudgeConfig) else ArenaJudgeConfig(model=_name(judge))
    names = list(models.values()) if isinstance(models, Mapping) else list(models)
    config = ArenaConfig(
        models=[name if isinstance(name, str) else "" for name in names],
        prompts=prompts if isinstance(prompts, str) else None,
        judge=given,
        out=out,
        **options,
    )
    objects = None if isinstance(judge, str | ArenaJudgeConfig | None) else judge
    rows = prompts if not isinstance(prompts, str | None) else None
    return run_arena(config, display or Display(), models=models, rows=rows, judge=objects)


def run_arena(
    options: ArenaConfig,
    display: Display,
    *,
    models: Sequence[str] | Mapping[str, str | Policy] | None = None,
    rows: Sequence[PromptRow] | None = None,
    judge: Any = None,
) -> Arena:
    """`arena` of its options; objects in memory replace what they name."""
    check(options, judge)
    out = store.local(options.out, "the folder of an arena").expanduser()
    if options.verdicts:
        return _by_people(options, out)
    entrants = entrants_of(options.models if models is None else models)
    if rows is None:
        questions = read_questions(options.prompts, options.models, options.limit, display.say)
    else:
        questions = questions_of(rows, options.limit, display.say)
    answers = {x.name: _answers(x, questions, options, out, display) for x in entrants}
    if options.human:
        files = sheet.write(out, questions, answers, options.seed)
        return Arena(answers, files=files)
    with _judge(options, judge) as compares:
        folder = out / VERDICTS / compares.name
        battles = {
            (a, b): _battles(compares, questions, (a, b), answers, folder, options, display)
            for a, b in combinations(answers, 2)
        }
        return _judged(folder, answers, battles, compares.ordered, options.seed)


def _by_people(options: ArenaConfig, out: Path) -> Arena:
    """Read a completed sheet; the answers are those that lie in the folder."""
    key = sheet.read_key(out)
    for name in short_names(options.models):
        if name not in key.models:
            raise ValueError(f"the sheet does not show {name}{did_you_mean(name, key.models)}")
    answers = {name: read_answers(out / ANSWERS / f"{name}.parquet") for name in key.models}
    battles = sheet.read(Path(str(options.verdicts)).expanduser(), key, answers)
    beside = agreement_with_people(out / VERDICTS, battles, answers)
    return _judged(out / VERDICTS / HUMAN, answers, battles, False, options.seed, beside)


def check(options: ArenaConfig, judge: object = None) -> None:
    """Raise ValueError unless exactly one of a judge, a sheet and its verdicts is asked for."""
    judges = bool(options.judge.model or judge is not None)
    given = {"--judge": judges, "--human": options.human, "--verdicts": bool(options.verdicts)}
    named = [name for name, value in given.items() if value]
    if len(named) != 1:
        what = " and ".join(named) if named else "none of them"
        raise ValueError(f"give one of --judge, --human and --verdicts, got {what}")


def _name(judge: object) -> str | None:
    return judge if isinstance(judge, str) else None


@contextmanager
def _judge(options: ArenaConfig, judge: Any) -> Iterator[ArenaJudge]:
    if judge is None:
        with load_judge.loaded(options.judge) as loaded:
            yield loaded
    elif isinstance(judge, RewardModel):
        yield load_judge.by_reward_model(judge, "reward_model")
    elif hasattr(judge, "ordered"):
        yield judge
    else:
        name = getattr(judge, "__name__", type(judge).__name__)
        yield load_judge.by_function(name, judge)


def _answers(
    entrant: Entrant,
    questions: Sequence[Question],
    options: ArenaConfig,
    out: Path,
    display: Display,
) -> list[Answer]:
    path = out / ANSWERS / f"{entrant.name}.parquet"
    with display.phase(f"{entrant.name} answers", len(questions)) as advance:
        return answers_of(entrant, questions, options, path, display.say, advance)


def _battles(
    judge: ArenaJudge,
    questions: Sequence[Question],
    pair: Pair,
    answers: Mapping[str, Sequence[Answer]],
    folder: Path,
    options: ArenaConfig,
    display: Display,
) -> list[Battle]:
    a, b = pair
    path = folder / f"{a}__{b}.parquet"
    with display.phase(f"{judge.name} compares {a} and {b}", len(questions)) as advance:
        return battles_of(
            judge, questions, answers[a], answers[b], path,
            size=options.batch_size, say=display.say, advance=advance,
        )  # fmt: skip


def _judged(
    folder: Path,
    answers: dict[str, list[Answer]],
    battles: dict[Pair, list[Battle]],
    ordered: bool,
    seed: int,
    agreement: Mapping[str, Summary] | None = None,
) -> Arena:
    summary = {"judge": folder.name} | summary_of(answers, battles, ordered=ordered, seed=seed)
    if agreement:
        summary["agreement"] = dict(agreement)
    text = json.dumps(summary, indent=2) + "\n"
    store.write(folder / SUMMARY, lambda file: file.write(text.encode()))
    return Arena(answers, battles, summary)
