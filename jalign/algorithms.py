"""The catalogue. Adding an algorithm: write its loss, add its row, add its golden test."""

from dataclasses import replace

from jalign import losses
from jalign.core import (
    Algorithm,
    Carry,
    did_you_mean,
    mean_over_examples,
    mean_over_tokens,
)
from jalign.formats import (
    BINARY,
    LISTS,
    PAIRS,
    RATED,
    STEPWISE,
    SUPERVISED,
    mean_over_chosen_tokens,
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

ROWS = (
    *_SUPERVISED,
    *_WITH_REFERENCE,
    *_WITHOUT_REFERENCE,
    *_UNPAIRED,
    *_LISTWISE,
    *_NEGATIVE,
    *_REWARDS,
)
ALGORITHMS = {row.name: row for row in ROWS}
assert len(ALGORITHMS) == len(ROWS), "two rows share a name"


def get(name: str) -> Algorithm:
    """The row of that name; an unknown one is a ValueError with the nearest."""
    if name not in ALGORITHMS:
        raise ValueError(f"no algorithm {name!r}{did_you_mean(name, ALGORITHMS)}")
    return ALGORITHMS[name]
