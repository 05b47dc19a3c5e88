"""Rows that learn from pairs of samples: selected, ranked by win rates, or from self-play."""

from jalign import losses
from jalign.algorithms._shared import NASH, nll
from jalign.core import Algorithm
from jalign.formats import PAIRS

SELF_PLAY = (
    Algorithm(
        "rso",
        losses.dpo,
        PAIRS,
        "2309.06657",
        # RSO's gamma; dpo's own default 0.1 is that of TRL
        {"beta": 0.05},
        about="The loss of RSO's sigmoid-norm form (beta is its gamma, 0.05) on pairs that are "
        "given. RSO's pairs come from statistical rejection sampling: rso_online makes them.",
    ),
    Algorithm(
        "rso_hinge",
        losses.gpo_hinge,
        PAIRS,
        "2309.06657",
        {"beta": 0.05},
        about="The loss of RSO's hinge-norm form (beta is its gamma, 0.05) on pairs that are "
        "given; without the sampling that gives the method its name.",
    ),
    Algorithm(
        "sppo",
        losses.sppo,
        PAIRS,
        "2405.00675",
        tags=NASH,
        about="One iteration of SPPO on the best and the worst of each prompt's samples, with "
        "their win rates from the data (chosen_win_rate, rejected_win_rate), as in the authors' "
        "code. The reference is to be the policy that wrote them; for the next iteration sample "
        "again, or run sppo_samples.",
    ),
    Algorithm(
        "sppo_hard",
        losses.sppo_hard,
        PAIRS,
        "2405.00675",
        tags=NASH,
        about="One iteration of SPPO where the chosen response is taken to win always: TRL's "
        "loss_type sppo_hard, for data without win rates.",
    ),
    Algorithm(
        "dno",
        losses.dno,
        PAIRS,
        "2404.03715",
        tags=NASH,
        about="One iteration of DNO's regression: dpo against the probability that the chosen "
        "response wins (chosen_prob, from the data). The reference is to be the policy that wrote "
        "them; dno_prct samples by itself.",
    ),
    Algorithm(
        "spin",
        losses.dpo,
        PAIRS,
        "2401.01335",
        about="The loss of SPIN, which is dpo, on pairs of a given response (chosen) and one that "
        "the reference wrote (rejected), made beforehand. beta is its lambda, 0.1; spin_online "
        "writes the rejected ones itself.",
    ),
    Algorithm(
        "discopop",
        losses.discopop,
        PAIRS,
        "2406.08414",
        about="The loss that a language model discovered: logistic and exponential, blended by "
        "the log-ratio. beta and tau 0.05 as in TRL and the authors' code.",
    ),
    Algorithm(
        # of the two papers called RPO this is iterative reasoning: TRL's rpo_alpha is its alpha
        "rpo",
        losses.dpo,
        PAIRS,
        "2404.19733",
        aux_losses=nll(1.0),
        about="dpo, beta 0.1, plus the NLL of the chosen response with weight nll_coef 1, as "
        "iterative reasoning preference optimization (2404.19733) and TRL's rpo_alpha have it. "
        "The NLL is a mean over all chosen tokens of the step, as in TRL; that paper divides each "
        "response's by its length. Regularized preference optimization (2405.16436) adds eta * "
        "beta times the SUMMED NLL instead, eta 0.005 and beta 0.05 in its authors' runs: for "
        "responses of about n tokens that is beta 0.05 with nll_coef 0.00025 n.",
    ),
    Algorithm(
        # soft AND delayed: TRL's defaults, though the paper takes one of the two at a time
        "tr_dpo",
        losses.dpo,
        PAIRS,
        "2404.09656",
        {"ref_sync_steps": 512, "ref_mixup_alpha": 0.6},
        about="dpo whose reference follows the policy: every ref_sync_steps 512 steps it becomes "
        "ref_mixup_alpha 0.6 of the policy and 0.4 of itself, which is TRL's pair of defaults. "
        "The paper updates either softly (ref_mixup_alpha below 1) or hard (a copy every "
        "ref_sync_steps: ref_mixup_alpha 1), not both at once.",
    ),
    Algorithm(
        "sdpo",
        losses.dpo,
        PAIRS,
        "2403.19270",
        {"ref_sync_steps": 512},
        about="Stepwise DPO: dpo whose reference becomes the policy itself every ref_sync_steps "
        "512 optimizer steps, wherever the data are. The paper divides the data into chunks, "
        "ordered from easy to hard, and trains on one after the other: for that set data.shuffle "
        "false, ref_sync_steps to the steps of a chunk, and mind that optimizer state and "
        "learning rate schedule run on. Self-distilled policy optimization is sdpo_feedback.",
    ),
)
