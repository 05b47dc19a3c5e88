"""Every config is complete and readable; every algorithm trains on the small model: the loss falls
and the method's own metric moves the right way.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jalign.algorithms import ALGORITHMS
from jalign.cli.pipeline import COMMANDS
from jalign.config.read import load_yaml, read_config
from jalign.leaderboard.spec import Spec
from jalign.pipeline.stages import expand
from jalign.train.preemption import ExitCode
from tests._tiny import arguments_of, config_of
from tests._train import train

ROOT = Path(__file__).parents[1]
PIPELINES = sorted((ROOT / "configs" / "pipelines").glob("*.yaml"))
LEADERBOARDS = sorted((ROOT / "configs" / "leaderboard").glob("*.yaml"))
OTHERS = {*PIPELINES, *LEADERBOARDS}
CONFIGS = [p for p in sorted((ROOT / "configs").rglob("*.yaml")) if p not in OTHERS]
TINY = {p.stem: p for p in CONFIGS if p.parent.name == "tiny"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_config_is_valid_short_and_says_how_to_run_it(path):
    text = path.read_text()
    read_config([str(path)])
    assert len(text.splitlines()) <= 60
    assert (text.startswith("#") and str(path.relative_to(ROOT)) in text) or "quickstart.sh" in text


@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: p.stem)
def test_a_pipeline_is_valid_short_and_says_how_to_run_it(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = path.read_text()
    expand(load_yaml(str(path)), {}, {}, COMMANDS)
    assert len(text.splitlines()) <= 70
    assert text.startswith("#") and f"jalign pipeline {path.relative_to(ROOT)}" in text


@pytest.mark.parametrize("path", LEADERBOARDS, ids=lambda p: p.stem)
def test_a_leaderboard_is_valid_short_and_says_how_to_run_it(path):
    text = path.read_text()
    Spec.from_dict(load_yaml(str(path)))
    assert len(text.splitlines()) <= 90
    assert text.startswith("#") and f"jalign leaderboard {path.relative_to(ROOT)}" in text


@pytest.mark.skipif(os.environ.get("JALIGN_TINY") != "all", reason="minutes: JALIGN_TINY=all")
@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: p.stem)
def test_a_pipeline_runs_to_its_end(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("XLA_FLAGS")  # one device: so a user runs it
    command = [sys.executable, "-m", "jalign", "pipeline", str(path), "--out", str(tmp_path)]
    assert subprocess.run(command).returncode == ExitCode.OK
    stages = expand(load_yaml(str(path)), {"out": str(tmp_path)}, {}, COMMANDS)
    assert all(stage.out.exists() for stage in stages)


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_tiny_config_is_what_its_row_asks_for(name):
    assert load_yaml(str(TINY[name])) == config_of(ALGORITHMS[name])


# What a method promises beside a falling loss, where margins and accuracies do not show it.
FALLS = {
    "npo": "logps/rejected",
    "gradient_ascent": "logps/rejected",
    "unlikelihood": "logps/rejected",
    "cringe": "logps/rejected",
    "dro_v": "joint",
    "gkd_on_policy": "objective/kl",
    "opd": "objective/kl",
    "iw_opd": "objective/kl",
}
RISES = {"prm": "step_accuracy"}


def paths(row):
    """The paths of code that this row takes and others do not: the format of its data, where its
    examples come from, and what stands beside the policy, each offline and online.
    """
    online = row.experience is not None
    roles = {
        "two passes": row.batch_coupled,
        "value head": row.needs_value_head,
        "critic": row.needs_critic,
        "teacher": row.needs_teacher,
    }
    opponent = row.experience.opponent if online else None
    taken = {row.format.name, *(role for role, needed in roles.items() if needed)}
    return {opponent, *((path, online) for path in taken)}


# Whole runs of these train in test_runs, test_online, test_roles, test_front_door and the examples.
ELSEWHERE = ("dpo", "kto", "sft", "bradley_terry", "ppo", "grpo", "rloo")


def one_of_each():
    """Few rows that together take every path that those of ELSEWHERE do not: the one that adds
    most, and so on.
    """
    names, left = [], set().union(*map(paths, ALGORITHMS.values()))
    left -= set().union(*(paths(ALGORITHMS[name]) for name in ELSEWHERE))
    while left:
        names.append(max(sorted(ALGORITHMS), key=lambda name: len(paths(ALGORITHMS[name]) & left)))
        left -= paths(ALGORITHMS[names[-1]])
    return names


# All of them take an hour of a core: JALIGN_TINY=all.
RUN = sorted(ALGORITHMS) if os.environ.get("JALIGN_TINY") == "all" else sorted(one_of_each())


@pytest.mark.parametrize("name", RUN)
def test_the_tiny_run_learns_what_the_method_promises(name, tmp_path, quick):
    """Of `one_of_each`; the contract tests check the losses of the others."""
    config = read_config([*arguments_of(ALGORITHMS[name]), "--out", str(tmp_path)])
    assert config.algorithm_name == name
    assert train(config, None) == ExitCode.OK
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    before, after = [row for row in rows if row["kind"] == "eval"]
    promised, sign = ("reward", 1) if "reward" in before else (FALLS.get(name, "loss"), -1)
    assert sign * after[promised] > sign * before[promised]
    for metric in ("rewards/margins", "rewards/accuracies", RISES.get(name)):
        if metric in before:
            assert after[metric] > before[metric], metric
    if metric := FALLS.get(name):
        assert after[metric] < before[metric], metric
    assert [row["step"] for row in rows if row["kind"] == "train"] == [4, 8, 12]
