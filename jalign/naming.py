"""How algorithms are named: rows of the catalogue, rows that users wrote, and names that people
know for what is a pipeline, a setting or another command here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from jalign.core import Algorithm
from jalign.user_code import attribute, digest_of_files, source_files

ELSEWHERE = {
    "oaif": "online_dpo, online_ipo or online_slic with an AI judge as the reward "
    "(--reward.judge.ask score --reward.judge.model MODEL)",
    "rlhf": "a reward model (bradley_terry) and then ppo with --reward.model ITS_RUN",
    "rlaif": "jalign pipeline configs/pipelines/rlaif_distilled.yaml (preferences of a judge, a "
    "reward model, RL), or rlaif_direct.yaml (the judge's score is the reward)",
    "constitutional_ai": "jalign pipeline configs/pipelines/constitutional.yaml",
    "self_rewarding": "jalign pipeline configs/pipelines/self_rewarding.yaml",
    "self_instruct": "jalign prompts, and jalign sample --file for their answers",
    "self_refine": "jalign revise",
    "best_of_n": "jalign sample MODEL --best_of N --reward RUN; learnt from, it is raft",
    "rejection_sampling": "raft (the best of each prompt), raft_top (the best share) or rso_online",
    "rest": "raft_top with --rollout.epochs above 1: grow, and improve on the best share",
    "expert_iteration": "raft or raft_top",
    "star": "raft with a rule such as exact_match as the reward",
    "rlvr": "grpo, dapo or rloo with rules as rewards (--reward.functions '{exact_match: 1.0}')",
    "lora": "a setting of every algorithm: --model.lora.rank 16",
    "qlora": "a setting of every algorithm: --model.quant nf4 --model.lora.rank 16",
    "perl": "a setting: reinforce_value or bradley_terry with --model.lora.rank 16",
    "paft": "two runs with --model.lora.rank (sft with --optim.l1, and dpo), then jalign merge",
    "knowledge_distillation": "gkd, gkd_forward, gkd_reverse or gkd_on_policy with "
    "--model.reference TEACHER",
    "minillm": "gkd_reverse or gkd_on_policy with --model.reference TEACHER",
    "sequence_kd": "jalign sample TEACHER --file PROMPTS --out DATA, then sft on DATA",
    "irpo": "rpo, which is its loss, on data of jalign label",
    "steerlm": "multi_attribute for the attribute model, sft on rated data",
    "model_soup": "jalign merge",
    "task_arithmetic": "jalign merge --method linear",
    "ties": "jalign merge --method ties",
    "dare": "jalign merge --method dare",
    "slerp": "jalign merge --method slerp",
    "process_reward_model": "prm",
    "outcome_reward_model": "orm",
    "reward_model": "bradley_terry of pairs, k_wise of lists, score_regression of ratings, orm of "
    "labels, prm of steps",
    "reinforce++": "reinforce_pp",
    "smaug": "dpop",
    "conservative_dpo": "cdpo",
    "length_normalized_dpo": "dpo_norm",
    "token_level_dpo": "tdpo1 or tdpo2",
    "stepwise_dpo": "sdpo",
    "f_divergence_dpo": "f_dpo_reverse_kl, f_dpo_forward_kl, f_dpo_js or f_dpo_alpha",
    "mpo": "a mix that the README builds as an algorithm of one's own",
    "slic": "slic_hf, or online_slic",
    "nash": "nash_md, nash_md_token or nash_ema",
    "drgrpo": "dr_grpo",
    "unpaired": "kto, bco or apo_zero_unpaired",
    "f_dpo": "f_dpo_reverse_kl, f_dpo_forward_kl, f_dpo_js or f_dpo_alpha",
    "gpo": "gpo_logistic, gpo_hinge, gpo_squared, gpo_exponential, gpo_savage or "
    "gpo_truncated_quadratic",
    "apo": "apo_zero or apo_down, apo_zero_unpaired for labels",
    "cringe_pairs": "pairwise_cringe",
    "tdpo": "tdpo1 or tdpo2",
    "lipo": "lipo_lambda, lipo_logistic, lipo_hinge or lipo_softmax",
    "dro": "dro_v or dro_v_joint",
}
"""Names people know -> where that is here."""

_JALIGN = Path(__file__).absolute().parent

_ALSO = {
    "cai": "constitutional_ai",
    "constitutional": "constitutional_ai",
    "rlcai": "constitutional_ai",
    "self_rewarding_lm": "self_rewarding",
    "self_rewarding_language_models": "self_rewarding",
    "online_ai_feedback": "oaif",
    "direct_rlaif": "rlaif",
    "d_rlaif": "rlaif",
    "bon": "best_of_n",
    "instructgpt": "rlhf",
    "rest_em": "rest",
    "rs": "rejection_sampling",
    "kd": "knowledge_distillation",
    "distillation": "knowledge_distillation",
    "rm": "reward_model",
    "reward": "reward_model",
    "iterative_rpo": "irpo",
    "dpo_positive": "dpop",
    "peft": "lora",
    "dora": "lora",
    "merge": "model_soup",
}


def find(name: object, rows: Mapping[str, Algorithm]) -> Algorithm:
    """The row of a name: of the catalogue, or a user's own as `file.py:row` or
    `package.module:row`.

    Raises:
      ValueError: no such row, file or module; says what is near, or where a known method is.
      TypeError: the user's object is no Algorithm.
    """
    if name in rows:
        return rows[name]  # type: ignore[index]
    text = str(name)
    if ":" in text:
        return _own(text)
    if here := elsewhere(text):
        raise ValueError(f"no algorithm {text!r}; here it is {here}")
    near = difflib.get_close_matches(_plain(text), rows, n=4)
    if not near:
        raise ValueError(
            f"no algorithm {text!r}; jalign algorithms lists them, and one of your own is named "
            "file.py:row or package.module:row"
        )
    more = f" Also near: {', '.join(near[1:])}." if near[1:] else ""
    raise ValueError(
        f"no algorithm {text!r}; did you mean {near[0]!r}?{more} jalign algorithms lists them all"
    )


def elsewhere(name: str) -> str | None:
    """Where a method is that people know by this name; None where the name is not known."""
    plain = _plain(name)
    return ELSEWHERE.get(_ALSO.get(plain, plain))


def _plain(name: str) -> str:
    """
    >>> _plain("Best-of-N"), _plain("Iterative DPO")
    ('best_of_n', 'iterative_dpo')
    """
    return re.sub(r"[-\s./]+", "_", name.strip().lower()).strip("_")


def _own(text: str) -> Algorithm:
    where, _, name = text.rpartition(":")
    try:
        return attribute(text, "Algorithm", lambda x: isinstance(x, Algorithm))
    except TypeError as error:
        if not str(error).startswith(text):
            raise
        raise TypeError(
            f"{error}: {where} needs a line such as row = Algorithm({name!r}, {name}, "
            "jalign.formats.PAIRS), and the name is then "
            f"{where}:row"
        ) from error


def code_digest(name: str, row: Algorithm) -> str | None:
    """A digest of the files that a user's row and its functions stand in; None of a catalogue row.
    What those import, jalign's own too, is not part of it.
    """
    if ":" not in name:
        return None
    where = name.rpartition(":")[0]
    files = {Path(where).expanduser().absolute()} if where.endswith(".py") else set()
    functions = [row.loss, *(aux.loss for aux in row.aux_losses.values())]
    functions += [row.experience.fn] if row.experience else []
    files |= source_files(*functions)
    return digest_of_files(path for path in files if _JALIGN not in path.parents)
