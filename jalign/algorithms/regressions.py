"""Policy optimization by regression: the optimum of a KL-regularized step, fitted in log space."""

from jalign import experience, losses
from jalign.algorithms._shared import ITERATIVE, rl
from jalign.core import Algorithm, Experience, mean_over_examples
from jalign.formats import PAIRS, SAMPLES

REGRESSIONS = (
    rl(
        "dar",
        losses.dar,
        "2602.11523",
        experience.lite_ppo,
        8,
        reduce=mean_over_examples,
        linear_in_advantages=False,
        about="RLHF as weighted SFT on samples of the policy: the weight has the advantage in its "
        "exponent and a KL to reference and old policy together, and is at most 20. Advantages "
        "are the score minus the mean of the group, over the deviation of the rollout.",
    ),
    Algorithm(
        "rebel",
        losses.rebel,
        PAIRS,
        "2404.16767",
        ITERATIVE,
        experience=Experience(experience.best_and_worst_with_margin, 2, iterative=True),
        about="Regression of the difference of rewards on that of the log-ratios to the policy of "
        "the last iteration, the reference here, which sampled both responses and becomes the "
        "policy every ref_sync_steps 64 optimizer steps; a rollout lasts as long. Log-probs are at "
        "temperature 1: keep rollout.temperature there. Of more than two responses the best and "
        "the worst make the pair.",
    ),
    Algorithm(
        "a_star_po",
        losses.a_star_po,
        SAMPLES,
        "2505.20686",
        # a square is right whoever drew the sample: no ratio, and log-probs at temperature 1
        regression=True,
        experience=Experience(experience.optimal_advantage, 9, "reference", opponents=8),
        about="One response of the policy, whose beta2 log(p / p_ref) is fitted to its reward "
        "minus V*, the value of the optimal policy, estimated from eight responses of the "
        "reference. The paper samples those once before training, here they are drawn with each "
        "rollout. beta1 0.5 and beta2 1e-3 are the authors'.",
    ),
    rl(
        "pmd",
        losses.pmd,
        "2602.05933",
        experience.others_mean,
        8,
        reduce=mean_over_examples,
        linear_in_advantages=False,
        about="PMD-mean, the loss of Kimi k1.5: log(p / p_old) of the response is fitted to the "
        "advantage over tau, which holds the policy near the old one in later steps on a rollout "
        "without a clip. The baseline is the mean of the other responses, as in the authors' code.",
    ),
)
