"""A run of every algorithm on the small model in the package, in seconds: derived from its row."""

from __future__ import annotations

from typing import Any

from jalign.core import Algorithm
from jalign.options.rollout import column_of

LISTS, STEPS, RATED = "embedded-lists", "embedded-steps", "embedded-rated"
DATA = {"list": LISTS, "steps": STEPS, "rating": RATED}

# Numbers without which twelve steps show nothing, by name: a property of the small model.
HYPER: dict[str, dict[str, Any]] = {
    "comal": {"eta": 0.1, "ref_sync_steps": 8},
    "cringe": {"top_k": 5},
    "discopop": {"tau": 0.2},
    "dro_v": {"tau": 0.2},
    "dro_v_joint": {"tau": 0.2},
    "inpo": {"eta": 0.1},
    "pro": {"sft_coef": 0.001},
    "sdpo": {"ref_sync_steps": 5},
    "sppo_samples": {"beta": 0.1},
    "vapo": {"value_pretraining_steps": 2},
}
LEARNING_RATE = {"dpop": 1e-4, "f_dpo_alpha": 1e-4, "f_dpo_forward_kl": 1e-4, "pro": 1e-3}
BATCH_SIZE = {"pro": 16, "raft_top": 60, "rso_online": 12}


def config_of(row: Algorithm) -> dict[str, Any]:
    """A config that trains this row of the catalogue for twelve steps."""
    online = row.experience is not None
    fast = online or row.needs_value_head or row.needs_teacher or row.format.joint_prompt
    config: dict[str, Any] = {
        "algorithm": {"name": row.name, **_hyper(row)},
        "out": f"runs/tiny/{row.name}",
        "model": {"path": "embedded"},
        "data": _data(row),
        "optim": {
            "learning_rate": LEARNING_RATE.get(row.name, 1e-3 if fast else 3e-4),
            "schedule": "constant",
        },
        "batch_size": BATCH_SIZE.get(row.name, 8),
        "steps": 12,
        "log_every": 4,
        "checkpoint": {"every": 0},
    }
    if row.needs_teacher:  # half of the layers learn from all of them
        config["model"] |= {"depth": 2, "reference": "embedded"}
    if "attribute_scores" in row.inputs():
        config["model"]["heads"] = 2
    return config | _online(row) if online else config


def arguments_of(row: Algorithm) -> list[str]:
    """The same on the command line."""
    return [word for key, value in _flat(config_of(row)) for word in (f"--{key}", f"{value}")]


def _hyper(row: Algorithm) -> dict[str, Any]:
    """Short iterations, where the reference becomes the policy every so many steps."""
    steps = ("ref_sync_steps", "last_sync_steps")
    short = {name: 4 for name in steps if row.hyperparameters.get(name, 0) > 12}
    return short | HYPER.get(row.name, {})


def _data(row: Algorithm) -> dict[str, Any]:
    read = set(row.inputs())
    train = LISTS if "chosen_win_rate" in read else DATA.get(row.format.feedback, "embedded")
    if row.experience or row.format.name == "scored":  # pairs are scores of 1 and 0
        train = "embedded"
    data: dict[str, Any] = {"train": train, "limit": 256, "eval_limit": 64, "max_prompt_len": 32}
    if row.format.joint_prompt:  # which holds both responses
        return data | {"max_prompt_len": 192}
    if row.experience and (template := row.experience.teacher_prompt):
        data["columns"] = {column_of(template): "chosen"}
    if row.experience is None:
        data["max_response_len"] = 64
    elif row.experience.opponent == "data":
        data["max_response_len"] = 32
    if row.hyperparameters.get("ptx_coef"):
        data |= {"pretraining": "embedded", "max_response_len": 64}
    if "chosen_prob" in read:
        data["soft_labels"] = 2.0
    return data


def _online(row: Algorithm) -> dict[str, Any]:
    """About 48 responses per step, and happier stories as the reward."""
    assert row.experience is not None
    read = set(row.rollout_inputs())
    rollout: dict[str, Any] = {"max_new_tokens": 24}
    reward: dict[str, Any] = {"functions": {"sentiment_reward": 1.0}}
    if row.needs_critic and not row.needs_fresh_samples:
        rollout["epochs"] = 2
    if row.name == "dapo":  # one that leaves groups out fills its rollouts by a second attempt
        rollout["attempts"] = 2
    if "step_scores" in read:
        rollout["max_new_tokens"], reward["step_separator"] = 32, "."
    if "win_probs" in read:
        reward["temperature"] = 0.2
    responses = row.experience.responses
    config: dict[str, Any] = {"rollout": rollout}
    config["batch_size"] = BATCH_SIZE.get(row.name, -(-48 // responses))
    if not row.needs_teacher:
        config["reward"] = reward
    return config


def _flat(section: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Dotted keys; a mapping of reward functions is one value."""
    items: list[tuple[str, Any]] = []
    for key, value in section.items():
        nested = isinstance(value, dict) and key not in ("functions", "columns")
        items += _flat(value, f"{path}{key}.") if nested else [(f"{path}{key}", value)]
    return items
