"""Rows of preference games that reach the equilibrium faster, or that of the game itself."""

from jalign import experience, losses
from jalign.algorithms._shared import ITERATIVE, NASH
from jalign.core import Algorithm, Experience
from jalign.formats import PAIRS, SAMPLES

MAGNETS = (
    Algorithm(
        # a row without code: nash_md against itself, and a reference that follows in jumps
        "mpo",
        losses.nash_md,
        SAMPLES,
        "2410.16714",
        ITERATIVE,
        experience=Experience(experience.win_rates_over_others, 2),
        tags=NASH,
        about="Magnetic preference optimization: self-play by nash_md whose reference, the magnet, "
        "becomes the policy every ref_sync_steps 64 steps. A fixed reference leaves a bias, each "
        "move makes it smaller; after moves too soon nothing is left of the regularization by "
        "which the last policy converges. Duality gap after 400 exact steps on a cyclic game: 0.19 "
        "without moves, 0.13, 0.002, 3e-6, 0.005 with one every 10, 20, 40, 80 "
        "(configs/real/nash_games.py). Without an importance ratio: take one step per rollout.",
    ),
    Algorithm(
        "inpo",
        losses.inpo,
        PAIRS,
        "2407.00617",
        {"last_sync_steps": 64},
        experience=Experience(experience.best_and_worst_win_rate, 5, iterative=True),
        tags=NASH,
        about="Iterative Nash policy optimization: in each iteration of last_sync_steps 64 steps a "
        "regression on pairs of samples of the policy it began with, the best and the worst of "
        "five by win rate, regularized to that policy and to the fixed reference. A rollout lasts "
        "as long. The paper draws eight responses and picks by a tournament; its optimizer begins "
        "anew in each iteration.",
    ),
    Algorithm(
        "comal",
        losses.inpo,
        PAIRS,
        "2410.23223",
        {"last_sync_steps": 64, "ref_sync_steps": 768},
        experience=Experience(experience.best_and_worst_win_rate, 5, iterative=True),
        tags=NASH,
        about="inpo whose reference becomes the policy, too, every ref_sync_steps 768 steps: 12 "
        "iterations, as in the authors' script. It converges to the equilibrium of the game "
        "itself, where inpo stops at that of the regularized one.",
    ),
    Algorithm(
        # the reference is the policy that the iteration began with, last the one before
        "omwu",
        losses.omwu,
        PAIRS,
        "2512.24818",
        ITERATIVE,
        experience=Experience(experience.optimistic_pair, 4, "last", iterative=True),
        last="reference",
        tags=NASH,
        about="Optimistic multiplicative weights: in each iteration of ref_sync_steps 64 steps the "
        "log-ratio of two samples to the reference, the policy that began it, is regressed "
        "on the difference of 2 P(y > policy) - P(y > policy one iteration before). Of four "
        "responses two are the pair, one stands for the policy and one is written by the "
        "policy of the iteration before. A rollout lasts an iteration. The paper has exact "
        "win rates.",
    ),
    Algorithm(
        "egpo",
        losses.egpo,
        PAIRS,
        "2503.08942",
        experience=Experience(experience.pair_against_last, 3, "last"),
        last="half_step",
        tags=NASH,
        about="Extragradient preference optimization: online IPO on win rates against the policy "
        "after a half step. An update takes two steps of the run, each with a rollout: the first "
        "moves the opponent alone, by half_step 1 of the update; the second, with responses of "
        "that opponent, moves the policy, with the optimizer state that the first began with. "
        "half_step 0 is online IPO. The learning rate's schedule counts updates, half of the "
        "steps. The reference is fixed, so it converges to the regularized equilibrium.",
    ),
    Algorithm(
        # the target is the opponent as well, so it is sampled and scored
        "nash_mp",
        losses.nash_mp,
        SAMPLES,
        "2505.19731",
        {"last_sync_steps": 1, "last_mixup_alpha": 0.1},
        experience=Experience(experience.against_last, 2, "last"),
        tags=NASH,
        about="Nash mirror prox: policy gradient against a target that follows the policy "
        "(last_mixup_alpha 0.1 at every step), with a KL to the target and one to the fixed "
        "reference. With adapters last_mixup_alpha must be 1: raise last_sync_steps instead. "
        "Without an importance ratio: take one step per rollout.",
    ),
)
