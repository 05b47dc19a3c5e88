"""Checks of rewards, judges and preferences against what an online algorithm reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jalign import algorithms
from jalign.options.reward import RewardConfig

if TYPE_CHECKING:
    from jalign.options.run import RunOptions


def check_rewards(options: RunOptions) -> Iterator[str]:
    """The rewards that the row learns from, and no options that none of them reads."""
    row, reward = options.algorithm, options.reward
    read = row.rollout_inputs()
    yield from _check_unread(options)
    if "step_scores" in read:
        yield from _check_step_rewards(options)
    elif reward.step_separator != RewardConfig().step_separator:
        yield f"reward.step_separator does not apply: {row.name} reads no rewards of steps"
    if {"scores", "reward_parts"} & set(read) and not reward.scores:
        yield f"{row.name} learns from rewards: {_how_to_reward(options)}"
    if "win_probs" in read and not reward.given:
        yield f"{row.name} learns from preferences: set reward.judge or a reward"
    if reward.judge.ask == "preference" and "win_probs" not in read:
        yield f"reward.judge.ask: preference does not apply: {row.name} reads no preferences"


def _check_unread(options: RunOptions) -> Iterator[str]:
    """Options of preferences and reward models that nothing reads."""
    row, reward, default = options.algorithm, options.reward, RewardConfig()
    read = row.rollout_inputs()
    preferences = reward.judge.ask == "preference"
    # a score may still be logged beside the judge's preferences, but is not learned from
    no_number = preferences and "scores" not in read and "the judge's preferences have no number"
    apart = "reward_parts" in read and "it reads each reward by itself, not their sum"
    unread = {
        "temperature": ("win_probs" not in read or preferences)
        and "no preferences are made of rewards",
        "model_weight": not reward.model and "there is no reward.model",
        "clip": no_number or apart,
        "missing_eos_penalty": no_number or apart,
    }
    for name, why in unread.items():
        if why and getattr(reward, name) != getattr(default, name):
            yield f"reward.{name} does not apply to {row.name}: {why}"


def _check_step_rewards(options: RunOptions) -> Iterator[str]:
    row, reward = options.algorithm, options.reward
    if not (reward.functions or reward.model):
        yield (
            f"{row.name} learns from rewards of steps: set reward.functions, which are then asked "
            "about each step, or reward.model, the folder of a run of prm"
        )
    whole_response = {
        "judge": reward.judge.ask != "nothing",
        "missing_eos_penalty": bool(reward.missing_eos_penalty),
    }
    for name, is_set in whole_response.items():
        if is_set:
            yield f"reward.{name} does not apply: {row.name} learns from rewards of steps"


def _how_to_reward(options: RunOptions) -> str:
    """The remedy for a missing reward, and why the judge that is set gives none."""
    if options.reward.judge.ask != "preference":
        return "set reward.functions, reward.model or reward.judge"
    rows = (row.name for row in algorithms.ROWS if "win_probs" in row.rollout_inputs())
    return (
        "reward.judge.ask is preference, which gives no response a reward: ask for score or "
        f"points, or take a method that learns from preferences ({', '.join(rows)})"
    )
