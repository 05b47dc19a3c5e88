"""Pure alignment losses: positional arrays, keyword-only numbers, unreduced results.

Every loss of the catalogue returns `(loss, metrics)`: the loss per example `[B]` (or per token
`[B, R]`) and named arrays of the same shape. Log-probabilities are in nats. Nothing here depends on
a model, a config or a device.
"""

from jalign.losses.binary.apo import apo_zero_unpaired
from jalign.losses.binary.bco import bco, bco_udm
from jalign.losses.binary.dro_v import dro_v, dro_v_joint
from jalign.losses.binary.kto import kto
from jalign.losses.binary.una import una, una_bce
from jalign.losses.distill.divergence import generalized_jsd
from jalign.losses.distill.gkd import forward_kl, gkd, reverse_kl
from jalign.losses.games.inpo import inpo
from jalign.losses.games.nash_md import nash_md, nash_md_token
from jalign.losses.games.nash_mp import nash_mp
from jalign.losses.games.sppo_samples import sppo_samples
from jalign.losses.games.win_rates import egpo, omwu
from jalign.losses.humanline import humanline
from jalign.losses.implicit import implicit_rewards, token_rewards
from jalign.losses.listwise.exo import dpo_list, exo_list
from jalign.losses.listwise.lipo import lipo_lambda
from jalign.losses.listwise.nca import info_nca_list, nca_list
from jalign.losses.listwise.ndcg import diff_ndcg, neural_ndcg
from jalign.losses.listwise.pro import pro
from jalign.losses.listwise.ranking import lipo_hinge, lipo_logistic, lipo_softmax, list_mle
from jalign.losses.listwise.rrhf import rrhf
from jalign.losses.listwise.swepo import swepo
from jalign.losses.negative.ascent import gradient_ascent
from jalign.losses.negative.cringe import cringe, pairwise_cringe
from jalign.losses.negative.d2o import d2o
from jalign.losses.negative.npo import npo
from jalign.losses.negative.unlikelihood import unlikelihood
from jalign.losses.pairwise.alphapo import alphapo
from jalign.losses.pairwise.aot import aot, aot_unpaired
from jalign.losses.pairwise.apo import apo_down, apo_zero
from jalign.losses.pairwise.bco import bco_pair
from jalign.losses.pairwise.beta_dpo import beta_dpo
from jalign.losses.pairwise.cal_dpo import cal_dpo
from jalign.losses.pairwise.cpo import cpo
from jalign.losses.pairwise.discopop import discopop
from jalign.losses.pairwise.dno import dno
from jalign.losses.pairwise.dpo import dpo
from jalign.losses.pairwise.dpop import dpop
from jalign.losses.pairwise.dr_dpo import dr_dpo
from jalign.losses.pairwise.epsilon_dpo import epsilon_dpo
from jalign.losses.pairwise.exo import exo_pair
from jalign.losses.pairwise.f_dpo import f_dpo_alpha, f_dpo_forward_kl, f_dpo_js
from jalign.losses.pairwise.gpo import (
    gpo_exponential,
    gpo_hinge,
    gpo_savage,
    gpo_squared,
    gpo_truncated_quadratic,
)
from jalign.losses.pairwise.holder_dpo import holder_dpo
from jalign.losses.pairwise.ipo import ipo, ipo_sum
from jalign.losses.pairwise.ld_dpo import ld_dpo
from jalign.losses.pairwise.nca import nca_pair
from jalign.losses.pairwise.norm import dpo_norm
from jalign.losses.pairwise.orpo import orpo
from jalign.losses.pairwise.r_dpo import r_dpo
from jalign.losses.pairwise.rainbow_po import rainbow_po
from jalign.losses.pairwise.rebel import rebel
from jalign.losses.pairwise.repo import repo
from jalign.losses.pairwise.robust import robust_dpo
from jalign.losses.pairwise.simper import simper
from jalign.losses.pairwise.simpo import simpo
from jalign.losses.pairwise.slic_hf import slic_hf
from jalign.losses.pairwise.sppo import sppo, sppo_hard
from jalign.losses.pairwise.tdpo import tdpo1, tdpo2
from jalign.losses.pairwise.wpo import wpo
from jalign.losses.pairwise.xpo import xpo
from jalign.losses.policy.a_star_po import a_star_po
from jalign.losses.policy.cispo import cispo
from jalign.losses.policy.corrected import corrected
from jalign.losses.policy.corrections import CORRECTIONS
from jalign.losses.policy.covariance import clip_cov, kl_cov
from jalign.losses.policy.dar import dar
from jalign.losses.policy.dppo import dppo_kl, dppo_tv
from jalign.losses.policy.full_vocab import entropy_bonus, kl_exact
from jalign.losses.policy.gmpo import gmpo
from jalign.losses.policy.gspo import gspo, gspo_token
from jalign.losses.policy.kl import kl_k2, kl_k3, kl_k3_ratio, kl_k3_straight_through
from jalign.losses.policy.pmd import pmd
from jalign.losses.policy.ppo import ppo, ppo_clip
from jalign.losses.policy.pretraining import pretraining_nll
from jalign.losses.policy.reinforce import reinforce, reinforce_with_value
from jalign.losses.policy.rloo import rloo
from jalign.losses.policy.sapo import sapo
from jalign.losses.policy.value import value_clip
from jalign.losses.policy.vapo import vapo
from jalign.losses.policy.vespo import vespo
from jalign.losses.regularizers import (
    forward_kl_on_chosen,
    forward_kl_per_token,
    length_margin,
)
from jalign.losses.reward.bradley_terry import (
    bradley_terry,
    bradley_terry_margin,
    bradley_terry_soft,
    reward_centering,
)
from jalign.losses.reward.listwise import k_wise, pick_best, plackett_luce
from jalign.losses.reward.normalize import fit_normalization
from jalign.losses.reward.outcome import outcome
from jalign.losses.reward.preference import (
    pair_rm,
    pointwise_from_pairwise,
    preference_ab,
    symmetrised,
)
from jalign.losses.reward.process import (
    potential_differences,
    process_reward,
    step_last,
    step_min,
    step_product,
)
from jalign.losses.reward.regression import multi_attribute, score_difference, score_regression
from jalign.losses.reward.token_level import token_bradley_terry
from jalign.losses.robust import re_po, robust_bco, robust_kto
from jalign.losses.router import router_balance, router_z
from jalign.losses.supervised import dft, nll, nll_best, nll_desirable, sft

__all__ = [
    "CORRECTIONS",
    "a_star_po",
    "alphapo",
    "aot",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "apo_zero_unpaired",
    "bco",
    "bco_pair",
    "bco_udm",
    "beta_dpo",
    "bradley_terry",
    "bradley_terry_margin",
    "bradley_terry_soft",
    "cal_dpo",
    "cispo",
    "clip_cov",
    "corrected",
    "cpo",
    "cringe",
    "d2o",
    "dar",
    "dft",
    "diff_ndcg",
    "discopop",
    "dno",
    "dpo",
    "dpo_list",
    "dpo_norm",
    "dpop",
    "dppo_kl",
    "dppo_tv",
    "dr_dpo",
    "dro_v",
    "dro_v_joint",
    "egpo",
    "entropy_bonus",
    "epsilon_dpo",
    "exo_list",
    "exo_pair",
    "f_dpo_alpha",
    "f_dpo_forward_kl",
    "f_dpo_js",
    "fit_normalization",
    "forward_kl",
    "forward_kl_on_chosen",
    "forward_kl_per_token",
    "generalized_jsd",
    "gkd",
    "gmpo",
    "gpo_exponential",
    "gpo_hinge",
    "gpo_savage",
    "gpo_squared",
    "gpo_truncated_quadratic",
    "gradient_ascent",
    "gspo",
    "gspo_token",
    "holder_dpo",
    "humanline",
    "implicit_rewards",
    "info_nca_list",
    "inpo",
    "ipo",
    "ipo_sum",
    "k_wise",
    "kl_cov",
    "kl_exact",
    "kl_k2",
    "kl_k3",
    "kl_k3_ratio",
    "kl_k3_straight_through",
    "kto",
    "ld_dpo",
    "length_margin",
    "lipo_hinge",
    "lipo_lambda",
    "lipo_logistic",
    "lipo_softmax",
    "list_mle",
    "multi_attribute",
    "nash_md",
    "nash_md_token",
    "nash_mp",
    "nca_list",
    "nca_pair",
    "neural_ndcg",
    "nll",
    "nll_best",
    "nll_desirable",
    "npo",
    "omwu",
    "orpo",
    "outcome",
    "pair_rm",
    "pairwise_cringe",
    "pick_best",
    "plackett_luce",
    "pmd",
    "pointwise_from_pairwise",
    "potential_differences",
    "ppo",
    "ppo_clip",
    "preference_ab",
    "pretraining_nll",
    "pro",
    "process_reward",
    "r_dpo",
    "rainbow_po",
    "re_po",
    "rebel",
    "reinforce",
    "reinforce_with_value",
    "repo",
    "reverse_kl",
    "reward_centering",
    "rloo",
    "robust_bco",
    "robust_dpo",
    "robust_kto",
    "router_balance",
    "router_z",
    "rrhf",
    "sapo",
    "score_difference",
    "score_regression",
    "sft",
    "simper",
    "simpo",
    "slic_hf",
    "sppo",
    "sppo_hard",
    "sppo_samples",
    "step_last",
    "step_min",
    "step_product",
    "swepo",
    "symmetrised",
    "tdpo1",
    "tdpo2",
    "token_bradley_terry",
    "token_rewards",
    "una",
    "una_bce",
    "unlikelihood",
    "value_clip",
    "vapo",
    "vespo",
    "wpo",
    "xpo",
]
