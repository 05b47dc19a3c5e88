"""Rows that seek the equilibrium of a preference game by self-play."""

from jalign import experience, losses
from jalign.algorithms._shared import ITERATIVE, NASH, rl
from jalign.core import Algorithm, Experience, mean_over_examples
from jalign.formats import PAIRS, SAMPLES

GAMES = (
    Algorithm(
        "nash_md",
        losses.nash_md,
        SAMPLES,
        "2312.00886",
        # 2: the policy's response and the opponent's; a third would not be read
        experience=Experience(experience.against_last, 2, "mixture"),
        tags=NASH,
        about="Self-play towards the equilibrium of a preference: samples of the policy against "
        "samples of the geometric mixture of policy and reference (rollout.mixture), by REINFORCE "
        "with the KL of whole responses. The reference is fixed. tau 0.1 as TRL's beta. "
        "Without an importance ratio: take one step per rollout.",
    ),
    Algorithm(
        "nash_md_token",
        losses.nash_md_token,
        SAMPLES,
        "2312.00886",
        experience=Experience(experience.against_last, 2, "mixture"),
        tags=NASH,
        about="nash_md as TRL computes it, where each token pays for its own log-ratio only, "
        "which is biased: for comparison with TRL. Without an importance ratio: take one step per "
        "rollout.",
    ),
    Algorithm(
        "nash_ema",
        losses.nash_md,
        SAMPLES,
        "2312.00886",
        # the opponent is the moving average itself: it is sampled as the reference
        {"ref_sync_steps": 1, "ref_mixup_alpha": 0.01},
        experience=Experience(experience.against_last, 2, "reference"),
        tags=NASH,
        about="nash_md against a slow average of the policy (the paper's Nash-EMA): the "
        "reference, which also writes the opponents, takes ref_mixup_alpha 0.01 of the policy at "
        "every step (ref_sync_steps 1). The KL term is to that average, too, where the paper "
        "keeps the first policy as its target. Without an importance ratio: one step per rollout.",
    ),
    Algorithm(
        "sppo_samples",
        losses.sppo_samples,
        SAMPLES,
        "2405.00675",
        ITERATIVE,
        experience=Experience(experience.win_rates, 5, iterative=True),
        tags=NASH,
        # a square is right whoever drew the sample: no ratio, and log-probs at temperature 1
        regression=True,
        about="SPPO on all five samples of a prompt, with their win rates among themselves. They "
        "are the reference's, which becomes the policy every ref_sync_steps 64 optimizer steps; a "
        "rollout lasts as long, so rollout.prompts is 64 steps' prompts unless it is set. The "
        "paper has three long iterations and regresses all samples; its code takes the best and "
        "the worst (sppo).",
    ),
    rl(
        # the paper leaves the RL method open; to rloo, as to preferences, a response is one action
        "spo",
        losses.rloo,
        "2401.04056",
        experience.win_rate_leave_one_out,
        4,
        reduce=mean_over_examples,
        tags=NASH,
        about="Self-play preference optimization: the reward of a response is how often it wins "
        "against the other samples of the policy, then rloo. The paper leaves the RL method open; "
        "here it is rloo, with its KL in the reward and its clip.",
    ),
    Algorithm(
        # DNO-Prct, which the authors train: their soft form is `dno` on fixed data
        "dno_prct",
        losses.dpo,
        PAIRS,
        "2404.03715",
        ITERATIVE,
        experience=Experience(experience.best_and_worst_win_rate, 5, iterative=True),
        tags=NASH,
        about="DNO-Prct: dpo on the sample that wins most and the one that wins least among five "
        "of the reference's, which becomes the policy every ref_sync_steps 64 optimizer steps; a "
        "rollout lasts as long, so rollout.prompts is 64 steps' prompts unless it is set. The "
        "paper also has a stronger model's response among the candidates, asks for a minimum "
        "margin (least_margin) and begins each iteration's optimizer anew.",
    ),
)
