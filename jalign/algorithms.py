"""The catalogue. Adding an algorithm: write its loss, add its row, add its golden test."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jalign import experience, losses, naming
from jalign.core import (
    Algorithm,
    Carry,
    Experience,
    LossFn,
    mean_over_examples,
    mean_over_tokens,
)
from jalign.formats import (
    BINARY,
    LISTS,
    PAIRS,
    RATED,
    SAMPLES,
    STEPWISE,
    SUPERVISED,
    mean_over_chosen_tokens,
    mean_over_pretraining_tokens,
    mean_over_responses,
    sum_over_longest,
)

JOINT = replace(PAIRS, name="joint", terms={})  # both candidates in one prompt, answers "A", "B"
NASH, LENGTH, SFT, NEGATIVE = (frozenset({x}) for x in ("nash", "length", "sft", "negative"))


def _nll(coef: float) -> dict:
    return {"nll_coef": (losses.nll, coef, mean_over_chosen_tokens)}


_CENTER = {"center_coef": (losses.reward_centering, 0.0, mean_over_examples)}

_SUPERVISED = (
    Algorithm("sft", losses.sft, SUPERVISED, "2203.02155", reduce=mean_over_tokens),
    Algorithm("gkd", losses.gkd, SUPERVISED, "2306.13649", reduce=mean_over_tokens),
    Algorithm("gkd_forward", losses.forward_kl, SUPERVISED, "2306.13649", reduce=mean_over_tokens),
    Algorithm("gkd_reverse", losses.reverse_kl, SUPERVISED, "2306.13649", reduce=mean_over_tokens),
)

_WITH_REFERENCE = (
    Algorithm("dpo", losses.dpo, PAIRS, "2305.18290"),
    Algorithm("cdpo", losses.dpo, PAIRS, "2305.18290", {"label_smoothing": 0.1}),
    Algorithm("robust_dpo", losses.robust_dpo, PAIRS, "2403.00409"),
    Algorithm("dpop", losses.dpop, PAIRS, "2402.13228"),
    Algorithm(
        "beta_dpo",
        losses.beta_dpo,
        PAIRS,
        "2407.08639",
        carry=Carry(("gap_mean", "gap_std")),
        batch_coupled=True,
    ),
    Algorithm("ipo", losses.ipo, PAIRS, "2310.12036"),
    Algorithm("ipo_sum", losses.ipo_sum, PAIRS, "2310.12036"),
    Algorithm("gpo_logistic", losses.dpo, PAIRS, "2402.05749"),
    Algorithm("gpo_hinge", losses.gpo_hinge, PAIRS, "2402.05749"),
    Algorithm("gpo_squared", losses.gpo_squared, PAIRS, "2402.05749"),
    Algorithm("gpo_exponential", losses.gpo_exponential, PAIRS, "2402.05749"),
    Algorithm("gpo_truncated_quadratic", losses.gpo_truncated_quadratic, PAIRS, "2402.05749"),
    Algorithm("gpo_savage", losses.gpo_savage, PAIRS, "2402.05749"),
    Algorithm("f_dpo_forward_kl", losses.f_dpo_forward_kl, PAIRS, "2309.16240"),
    Algorithm("f_dpo_js", losses.f_dpo_js, PAIRS, "2309.16240"),
    Algorithm("f_dpo_alpha", losses.f_dpo_alpha, PAIRS, "2309.16240"),
    Algorithm("f_dpo_reverse_kl", losses.dpo, PAIRS, "2309.16240"),
    Algorithm("r_dpo", losses.r_dpo, PAIRS, "2403.19159"),
    Algorithm("ld_dpo", losses.ld_dpo, PAIRS, "2409.06411", tags=LENGTH),
    Algorithm("dpo_norm", losses.dpo_norm, PAIRS, "2411.15124"),
    Algorithm("wpo", losses.wpo, PAIRS, "2406.11827"),
    Algorithm("tdpo1", losses.tdpo1, PAIRS, "2404.11999"),
    Algorithm("tdpo2", losses.tdpo2, PAIRS, "2404.11999"),
    Algorithm("apo_zero", losses.apo_zero, PAIRS, "2408.06266"),
    Algorithm("apo_down", losses.apo_down, PAIRS, "2408.06266"),
    Algorithm("aot", losses.aot, PAIRS, "2406.05882", batch_coupled=True),
    Algorithm("aot_unpaired", losses.aot_unpaired, PAIRS, "2406.05882", batch_coupled=True),
    Algorithm("exo", losses.exo_pair, PAIRS, "2402.00856"),
    Algorithm("nca", losses.nca_pair, PAIRS, "2402.05369"),
    Algorithm("info_nca", losses.dpo, PAIRS, "2402.05369", {"beta": 0.01}),
    Algorithm(
        "bco_pair",
        losses.bco_pair,
        PAIRS,
        "2404.04656",
        carry=Carry(("delta",)),
        batch_coupled=True,
    ),
    Algorithm("rso", losses.dpo, PAIRS, "2309.06657", {"beta": 0.05}),
    Algorithm("rso_hinge", losses.gpo_hinge, PAIRS, "2309.06657", {"beta": 0.05}),
    Algorithm("sppo", losses.sppo, PAIRS, "2405.00675", tags=NASH),
    Algorithm("sppo_hard", losses.sppo_hard, PAIRS, "2405.00675", tags=NASH),
    Algorithm("dno", losses.dno, PAIRS, "2404.03715", tags=NASH),
    Algorithm("spin", losses.dpo, PAIRS, "2401.01335"),
    Algorithm("discopop", losses.discopop, PAIRS, "2406.08414"),
    Algorithm("rpo", losses.dpo, PAIRS, "2405.16436", plus=_nll(1.0)),
    Algorithm(
        "tr_dpo", losses.dpo, PAIRS, "2404.09656", {"ref_sync_steps": 512, "ref_mixup_alpha": 0.6}
    ),
    Algorithm("sdpo", losses.dpo, PAIRS, "2403.19270", {"ref_sync_steps": 512}),
)

_WITHOUT_REFERENCE = (
    Algorithm("slic_hf", losses.slic_hf, PAIRS, "2305.10425", tags=SFT),
    Algorithm("simpo", losses.simpo, PAIRS, "2405.14734"),
    Algorithm("alphapo", losses.alphapo, PAIRS, "2501.03884"),
    Algorithm("cpo", losses.cpo, PAIRS, "2401.08417", plus=_nll(1.0)),
    Algorithm("cpo_simpo", losses.simpo, PAIRS, "2401.08417", plus=_nll(1.0)),
    Algorithm("orpo", losses.orpo, PAIRS, "2403.07691", plus=_nll(1.0)),
    Algorithm("dpo_reference_free", losses.cpo, PAIRS, "2305.18290"),
)

_UNPAIRED = (
    Algorithm("kto", losses.kto, BINARY, "2402.01306", batch_coupled=True),
    Algorithm("bco", losses.bco, BINARY, "2404.04656", carry=Carry(("delta",)), batch_coupled=True),
    Algorithm(
        "bco_udm", losses.bco_udm, BINARY, "2404.04656", carry=Carry(("delta",)), batch_coupled=True
    ),
    Algorithm("apo_zero_unpaired", losses.apo_zero_unpaired, BINARY, "2408.06266"),
    Algorithm("dro_v", losses.dro_v, RATED, "2405.19107"),
    Algorithm("dro_v_joint", losses.dro_v_joint, RATED, "2405.19107"),
)

_LISTWISE = (
    Algorithm("lipo_lambda", losses.lipo_lambda, LISTS, "2402.01878"),
    Algorithm("lipo_logistic", losses.lipo_logistic, LISTS, "2402.01878"),
    Algorithm("lipo_hinge", losses.lipo_hinge, LISTS, "2402.01878"),
    Algorithm("list_mle", losses.list_mle, LISTS, "2402.01878"),
    Algorithm("lipo_softmax", losses.lipo_softmax, LISTS, "2402.01878"),
    Algorithm("rrhf", losses.rrhf, LISTS, "2304.05302", tags=SFT),
    Algorithm("pro", losses.pro, LISTS, "2306.17492", tags=SFT),
    Algorithm("exo_list", losses.exo_list, LISTS, "2402.00856"),
    Algorithm("dpo_list", losses.dpo_list, LISTS, "2402.00856"),
    Algorithm("nca_list", losses.nca_list, LISTS, "2402.05369"),
    Algorithm("info_nca_list", losses.info_nca_list, LISTS, "2402.05369"),
)

_NEGATIVE = (
    Algorithm("npo", losses.npo, PAIRS, "2404.05868"),
    Algorithm("gradient_ascent", losses.gradient_ascent, PAIRS, "2404.05868"),
    Algorithm("unlikelihood", losses.unlikelihood, PAIRS, "1908.04319", plus=_nll(1.0)),
    Algorithm("d2o", losses.d2o, LISTS, "2403.03419", tags=NEGATIVE),
    Algorithm("nn", losses.d2o, LISTS, "2403.03419", tags=NEGATIVE),
    Algorithm("cringe", losses.cringe, BINARY, "2211.05826", reduce=mean_over_tokens, tags=SFT),
    Algorithm("pairwise_cringe", losses.pairwise_cringe, PAIRS, "2312.16682", tags=SFT),
)

_REWARDS = (
    Algorithm("bradley_terry", losses.bradley_terry, PAIRS, "2203.02155", plus=_CENTER),
    Algorithm(
        "bradley_terry_margin", losses.bradley_terry_margin, PAIRS, "2307.09288", plus=_CENTER
    ),
    Algorithm("bradley_terry_soft", losses.bradley_terry_soft, PAIRS, "2309.00267", plus=_CENTER),
    Algorithm("token_bradley_terry", losses.token_bradley_terry, PAIRS, "2404.12358"),
    Algorithm("k_wise", losses.k_wise, LISTS, "2203.02155"),
    Algorithm("pick_best", losses.pick_best, LISTS, "1909.08593"),
    Algorithm("plackett_luce", losses.plackett_luce, LISTS, "2203.02155"),
    Algorithm("score_regression", losses.score_regression, RATED, "1909.08593"),
    Algorithm("score_difference", losses.score_difference, PAIRS, "1909.08593"),
    Algorithm("multi_attribute", losses.multi_attribute, RATED, "2311.09528"),
    Algorithm("orm", losses.outcome, BINARY, "2110.14168"),
    Algorithm("prm", losses.process_reward, STEPWISE, "2305.20050", reduce=mean_over_tokens),
    Algorithm("pair_rm", losses.pair_rm, JOINT, "2306.02561"),
    Algorithm("preference_ab", losses.preference_ab, JOINT, "2405.07863"),
)

# The reference is the policy of the last iteration, and a rollout, which it samples, lasts as long.
_ITERATIVE = {"ref_sync_steps": 64}
_K3 = {"kl_k3_coef": (losses.kl_k3, 0.04, mean_over_responses)}
_PTX = {"ptx_coef": (losses.pretraining_nll, 0.05, mean_over_pretraining_tokens)}
_K2 = {"kl_k2_coef": (losses.kl_k2, 0.01, mean_over_tokens)}


def _rl(name: str, loss: LossFn, paper: str, make: Callable, k: int, **more: Any) -> Algorithm:
    """A row of policy optimization on K responses to a prompt; the token mean unless it says
    otherwise.
    """
    more = {"reduce": mean_over_tokens} | more
    return Algorithm(name, loss, SAMPLES, paper, experience=Experience(make, k), **more)


_POLICY = (
    _rl("ppo", losses.ppo, "2203.02155", experience.gae, 1),
    _rl("ppo_whitened", losses.ppo, "1909.08593", experience.gae_whitened, 1),
    _rl(
        "ppo_ema",
        losses.ppo,
        "2404.10719",
        experience.gae,
        1,
        defaults={"ref_sync_steps": 1, "ref_mixup_alpha": 0.001},
    ),
    _rl("ppo_ptx", losses.ppo, "2203.02155", experience.gae, 1, plus=_PTX),
    _rl("reinforce", losses.reinforce, "2402.14740", experience.returns_minus_batch_mean, 1),
    _rl(
        "reinforce_value",
        losses.reinforce_with_value,
        "2309.00267",
        experience.returns_minus_value,
        1,
    ),
    _rl("reinforce_pp", losses.ppo_clip, "2501.03262", experience.returns_whitened, 1),
    _rl(
        "reinforce_pp_baseline",
        losses.ppo_clip,
        "2501.03262",
        experience.group_mean_whitened,
        8,
        plus=_K2,
    ),
    _rl("rloo", losses.rloo, "2402.14740", experience.leave_one_out, 4, reduce=mean_over_examples),
    _rl("rloo_token", losses.ppo_clip, "2402.14740", experience.leave_one_out, 4),
    _rl("remax", losses.reinforce, "2310.10505", experience.minus_greedy, 1),
    _rl(
        "grpo",
        losses.ppo_clip,
        "2402.03300",
        experience.group_normalized,
        8,
        plus=_K3,
        reduce=mean_over_responses,
    ),
    _rl(
        "grpo_process",
        losses.ppo_clip,
        "2402.03300",
        experience.steps_normalized,
        8,
        plus=_K3,
        reduce=mean_over_responses,
    ),
    _rl(
        "dr_grpo",
        losses.ppo_clip,
        "2503.20783",
        experience.group_centred,
        8,
        reduce=sum_over_longest,
    ),
    _rl(
        "dapo",
        losses.ppo_clip,
        "2503.14476",
        experience.informative_groups,
        8,
        defaults={"clip_high": 0.28},
    ),
    _rl(
        "gspo", losses.gspo, "2507.18071", experience.group_normalized, 8, reduce=mean_over_examples
    ),
    _rl(
        "gspo_token",
        losses.gspo_token,
        "2507.18071",
        experience.group_normalized,
        8,
        reduce=mean_over_responses,
    ),
    _rl("cispo", losses.cispo, "2506.13585", experience.group_normalized, 8),
)

_ONLINE_PAIRS = (
    Algorithm(
        "online_dpo",
        losses.dpo,
        PAIRS,
        "2402.04792",
        experience=Experience(experience.best_and_worst, 2),
    ),
    Algorithm(
        "online_ipo",
        losses.ipo_sum,
        PAIRS,
        "2402.04792",
        {"tau": 1.0},
        experience=Experience(experience.best_and_worst, 2),
    ),
    Algorithm(
        "online_slic",
        losses.gpo_hinge,
        PAIRS,
        "2402.04792",
        {"beta": 0.002},
        experience=Experience(experience.best_and_worst, 2),
    ),
    Algorithm(
        "xpo",
        losses.xpo,
        PAIRS,
        "2405.21046",
        experience=Experience(experience.best_and_worst_with_origin, 2, "reference"),
    ),
    Algorithm(
        "iterative_dpo",
        losses.dpo,
        PAIRS,
        "2312.11456",
        experience=Experience(experience.best_and_worst, 8),
    ),
    Algorithm(
        "rso_online",
        losses.dpo,
        PAIRS,
        "2309.06657",
        {"beta": 0.05},
        experience=Experience(experience.rejection_sampled, 8),
    ),
    Algorithm(
        "iterative_cringe",
        losses.pairwise_cringe,
        PAIRS,
        "2312.16682",
        experience=Experience(experience.best_and_worst, 4),
        tags=SFT,
    ),
    Algorithm(
        "spin_online",
        losses.dpo,
        PAIRS,
        "2401.01335",
        _ITERATIVE,
        experience=Experience(experience.data_against_sample, 2, "data", iterative=True),
    ),
    Algorithm(
        "gkd_on_policy",
        losses.gkd,
        SUPERVISED,
        "2306.13649",
        reduce=mean_over_tokens,
        experience=Experience(experience.everything, 1),
    ),
    Algorithm(
        "raft",
        losses.sft,
        SUPERVISED,
        "2304.06767",
        reduce=mean_over_tokens,
        experience=Experience(experience.best, 4),
    ),
    Algorithm(
        "raft_top",
        losses.sft,
        SUPERVISED,
        "2304.06767",
        reduce=mean_over_tokens,
        experience=Experience(experience.top_share, 1),
    ),
)

_GAMES = (
    Algorithm(
        "nash_md",
        losses.nash_md,
        SAMPLES,
        "2312.00886",
        experience=Experience(experience.against_last, 2, "mixture"),
        tags=NASH,
    ),
    Algorithm(
        "nash_md_token",
        losses.nash_md_token,
        SAMPLES,
        "2312.00886",
        experience=Experience(experience.against_last, 2, "mixture"),
        tags=NASH,
    ),
    # The KL of its loss is to the average, too, where the paper keeps the start as the reference.
    Algorithm(
        "nash_ema",
        losses.nash_md,
        SAMPLES,
        "2312.00886",
        {"ref_sync_steps": 1, "ref_mixup_alpha": 0.01},
        experience=Experience(experience.against_last, 2, "reference"),
        tags=NASH,
    ),
    Algorithm(
        "sppo_samples",
        losses.sppo_samples,
        SAMPLES,
        "2405.00675",
        _ITERATIVE,
        experience=Experience(experience.win_rates, 5, iterative=True),
        tags=NASH | {"regression"},
    ),
    _rl(
        "spo",
        losses.rloo,
        "2401.04056",
        experience.win_rate_leave_one_out,
        4,
        reduce=mean_over_examples,
        tags=NASH,
    ),
    Algorithm(
        "dno_prct",
        losses.dpo,
        PAIRS,
        "2404.03715",
        _ITERATIVE,
        experience=Experience(experience.best_and_worst_win_rate, 5, iterative=True),
        tags=NASH,
    ),
)

ROWS = (
    *_SUPERVISED,
    *_WITH_REFERENCE,
    *_WITHOUT_REFERENCE,
    *_UNPAIRED,
    *_LISTWISE,
    *_NEGATIVE,
    *_REWARDS,
    *_POLICY,
    *_ONLINE_PAIRS,
    *_GAMES,
)
ALGORITHMS = {row.name: row for row in ROWS}
assert len(ALGORITHMS) == len(ROWS), "two rows share a name"


def get(name: str) -> Algorithm:
    """The row of that name, or a user's own, as `file.py:row` or `package.module:row`; an unknown
    one is a ValueError with the nearest.
    """
    return naming.find(name, ALGORITHMS)
