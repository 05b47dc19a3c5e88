"""Known names of methods that jalign has as a pipeline, a setting or another command."""

from __future__ import annotations

import re

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
    "best_of_n": "jalign sample MODEL --best_of N --reward RUN; learned from, it is raft",
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
    "on_policy_distillation": "opd or iw_opd, or gkd_on_policy over the whole vocabulary, with "
    "--model.reference TEACHER",
    "self_distilled_policy_optimization": "sdpo_feedback; sdpo is stepwise DPO",
    "self_distillation": "sdft from demonstrations, sdpo_feedback from feedback",
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
    "mixed_preference_optimization": "a mix that the README builds as an algorithm of one's own",
    "onpo": "omwu, whose one step is its two",
    "slic": "slic_hf, or online_slic",
    "nash": "nash_md, nash_md_token, nash_ema, nash_mp, mpo, inpo, comal, omwu or egpo",
    "drgrpo": "dr_grpo",
    "unpaired": "kto, bco or apo_zero_unpaired",
    "f_dpo": "f_dpo_reverse_kl, f_dpo_forward_kl, f_dpo_js or f_dpo_alpha",
    "humanline": "humanline+NAME, a row whose log-ratios of tokens are clamped: humanline+dpo",
    "rubrics": "a setting: --reward.judge.ask rubric with questions, or jalign label --ask rubric",
    "online_merging": "a setting of the optimizer: --optim.merging.base MODEL, that before "
    "fine-tuning; from Python jalign.optim.online_merging around another one",
    "drpo": "diff_ndcg",
    "gpo": "gpo_logistic, gpo_hinge, gpo_squared, gpo_exponential, gpo_savage or "
    "gpo_truncated_quadratic",
    "apo": "apo_zero or apo_down, apo_zero_unpaired for labels",
    "cringe_pairs": "pairwise_cringe",
    "tdpo": "tdpo1 or tdpo2",
    "dppo": "dppo_tv or dppo_kl",
    "pmd_mean": "pmd",
    "apo_star": "a_star_po",
    "tis": "a correction of any policy gradient: --rollout.corrections '{tis: 2.0}'",
    "icepop": "a correction of any policy gradient: --rollout.corrections '{mis: 2.0}'",
    "opsm": "a correction of any policy gradient: --rollout.corrections '{opsm: 0.05}'",
    "lipo": "lipo_lambda, lipo_logistic, lipo_hinge or lipo_softmax",
    "dro": "dro_v or dro_v_joint",
}
"""Known name -> how to get the method in jalign."""

SYNONYMS = {
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
    "sdpo_self_distillation": "self_distilled_policy_optimization",
    "self_distillation_policy_optimization": "self_distilled_policy_optimization",
    "opsd": "self_distillation",
    "distillation": "knowledge_distillation",
    "rm": "reward_model",
    "reward": "reward_model",
    "iterative_rpo": "irpo",
    "dpo_positive": "dpop",
    "peft": "lora",
    "dora": "lora",
    "merge": "model_soup",
    "rubrics_as_rewards": "rubrics",
    "ondare": "online_merging",
    "onties": "online_merging",
}
"""Synonyms of the keys of `ELSEWHERE`."""


def elsewhere(name: str) -> str | None:
    """How to get a method that is not a row of the catalogue; None if the name is unknown."""
    # people write Best-of-N, best_of_n and best of n
    plain = normalized(name)
    return ELSEWHERE.get(SYNONYMS.get(plain, plain))


def normalized(name: str) -> str:
    """
    >>> normalized("Best-of-N"), normalized("Iterative DPO")
    ('best_of_n', 'iterative_dpo')
    """
    return re.sub(r"[-\s./]+", "_", name.strip().lower()).strip("_")
