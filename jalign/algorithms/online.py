"""Preferences among the policy's own samples."""

from jalign import experience, losses
from jalign.algorithms._shared import ITERATIVE, SFT
from jalign.core import Algorithm, Experience
from jalign.formats import PAIRS

ONLINE = (
    Algorithm(
        "online_dpo",
        losses.dpo,
        PAIRS,
        "2402.04792",
        experience=Experience(experience.best_and_worst, 2),
        about="dpo on pairs that the policy writes at each step and a judge or reward orders "
        "(OAIF): of two responses the better is chosen. The reference is fixed. TRL has beta "
        "0.1 as here.",
    ),
    Algorithm(
        "online_ipo",
        # OAIF's IPO is over sums, so not TRL's mean per token that `ipo` has
        losses.ipo_sum,
        PAIRS,
        "2402.04792",
        {"tau": 1.0},
        experience=Experience(experience.best_and_worst, 2),
        about="ipo_sum on pairs that the policy writes at each step: OAIF's IPO, tau 1.0 as in "
        "the paper.",
    ),
    Algorithm(
        "online_slic",
        losses.gpo_hinge,
        PAIRS,
        "2402.04792",
        {"beta": 0.002},
        experience=Experience(experience.best_and_worst, 2),
        about="The hinge with a reference on pairs that the policy writes at each step: OAIF's "
        "SLiC, beta 0.002 as in the paper.",
    ),
    Algorithm(
        # half of the responses are the reference's: the loss needs one of them in every pair
        "xpo",
        losses.xpo,
        PAIRS,
        "2405.21046",
        experience=Experience(experience.best_and_worst_with_origin, 2, "reference"),
        about="online_dpo that explores: of the two responses one is the reference's, and its "
        "likelihood is pushed down by alpha. The reference is fixed.",
    ),
    Algorithm(
        "iterative_dpo",
        losses.dpo,
        PAIRS,
        "2312.11456",
        experience=Experience(experience.best_and_worst, 8),
        about="dpo on the best and the worst of eight samples of the policy (best-of-n against "
        "worst-of-n). The reference is fixed, as in the paper, which samples once per long "
        "iteration and trains on all of it: rollout.prompts makes rollouts of many steps.",
    ),
    Algorithm(
        "rso_online",
        losses.dpo,
        PAIRS,
        "2309.06657",
        {"beta": 0.05},
        experience=Experience(experience.rejection_sampled, 8),
        about="Statistical rejection sampling: of eight samples the first two that are accepted, "
        "as if drawn from the optimal policy, make a pair for dpo with beta 0.05. Samples are the "
        "policy's as it moves and candidates are 8; the paper takes 64 of the SFT model, accepts "
        "8 and makes pairs of them once.",
    ),
    Algorithm(
        "iterative_cringe",
        losses.pairwise_cringe,
        PAIRS,
        "2312.16682",
        experience=Experience(experience.best_and_worst, 4),
        tags=SFT,
        about="pairwise_cringe on the best and the worst of four samples of the policy. The paper "
        "runs few long iterations and adds the given pairs; here a rollout serves one step unless "
        "rollout.prompts says otherwise.",
    ),
    Algorithm(
        # iterative: SPIN's opponent is the policy of the last iteration, here the reference
        "spin_online",
        losses.dpo,
        PAIRS,
        "2401.01335",
        ITERATIVE,
        experience=Experience(experience.data_against_sample, 2, "data", iterative=True),
        about="SPIN: the data's response is chosen, the reference's own rejected. The reference "
        "becomes the policy every ref_sync_steps 64 optimizer steps, and a rollout, which samples "
        "it, lasts as long, so that an iteration is as in the paper but short: there it is epochs "
        "over the data, with the optimizer begun anew and beta raised in the last.",
    ),
)
