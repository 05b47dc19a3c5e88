"""Calls of lm_eval: its tasks, its evaluation, its results on disk. Needs the extra `eval`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable, pattern_match

from jalign import store
from jalign.core import did_you_mean
from jalign.eval.benchmarks.lm import JalignLM
from jalign.options import BenchmarkConfig

if TYPE_CHECKING:
    from jalign.run.policy import Policy

Task = str | Mapping[str, Any]


def task_manager(tasks: Sequence[Task], include_path: str | None) -> TaskManager:
    """What knows these tasks.

    Raises:
      ValueError: an unknown task, or no folder `include_path`.
    """
    folder = Path(include_path).expanduser() if include_path else None
    if folder and not folder.is_dir():
        raise ValueError(f"include_path: there is no folder {folder}")
    names = [task for task in tasks if isinstance(task, str)]
    # lm_eval's own tasks are thousands of files, which are read only where one of them is asked for
    own = TaskManager(include_path=folder, include_defaults=False) if folder else None
    if own and all(pattern_match([name], own.all_tasks) for name in names):
        return own
    manager = TaskManager(include_path=folder, include_defaults=bool(names))
    for name in names:
        if not pattern_match([name], manager.all_tasks):
            near = did_you_mean(name, manager.all_tasks)
            where = "" if folder else "; --include_path DIR adds tasks of your own"
            raise ValueError(f"lm_eval has no task {name!r}{near[:200]}{where}")
    return manager


def evaluate(
    policy: Policy, tasks: Sequence[Task], manager: TaskManager, options: BenchmarkConfig
) -> dict[str, Any]:
    """The result of `lm_eval.simple_evaluate`, the samples included.

    Raises:
      ValueError: the data of a task cannot be reached.
    """
    lm = JalignLM(
        policy, batch_size=options.batch_size, max_length=options.max_length, seed=options.seed
    )
    simple_evaluate: Any = lm_eval.simple_evaluate  # a decorator hides its signature
    try:
        results = simple_evaluate(
            model=lm,
            tasks=[task if isinstance(task, str) else dict(task) for task in tasks],
            task_manager=manager,
            limit=options.limit or None,
            num_fewshot=options.num_fewshot,
            apply_chat_template=options.chat,
            bootstrap_iters=0,  # intervals are ours
            random_seed=options.seed,
            numpy_random_seed=options.seed,
            torch_random_seed=None,  # it would import torch
            fewshot_random_seed=options.seed,
        )
    except ConnectionError as error:
        remedy = "a task on local files needs no hub: --include_path DIR (jalign/eval/README.md)"
        raise ValueError(f"{error}; {remedy}") from error
    assert results is not None  # one process
    return dict(results)


def write(results: Mapping[str, Any], out: Path, name: str) -> None:
    """Write NAME.json, lm_eval's results, and NAME.samples.jsonl, every answer."""
    facts = {key: value for key, value in results.items() if key != "samples"}
    samples = [
        {"task": task, **sample} for task, rows in results["samples"].items() for sample in rows
    ]
    lines = "".join(_json(sample) + "\n" for sample in samples)
    store.write(out / f"{name}.json", lambda file: file.write(_json(facts).encode()))
    store.write(out / f"{name}.samples.jsonl", lambda file: file.write(lines.encode()))


def _json(value: object) -> str:
    return json.dumps(value, default=handle_non_serializable, ensure_ascii=False)
