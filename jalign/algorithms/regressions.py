"""Policy optimization by regression: the optimum of a KL-regularized step, fitted in log space."""

from jalign import experience, losses
from jalign.algorithms._shared import rl
from jalign.core import mean_over_examples

REGRESSIONS = (
    rl(
        "dar",
        losses.dar,
        "2602.11523",
        experience.lite_ppo,
        8,
        reduce=mean_over_examples,
        about="RLHF as weighted SFT on samples of the policy: the weight has the advantage in its "
        "exponent and a KL to reference and old policy together, and is at most 20. Advantages "
        "are the score minus the mean of the group, over the deviation of the rollout.",
    ),
    rl(
        "pmd",
        losses.pmd,
        "2602.05933",
        experience.others_mean,
        8,
        reduce=mean_over_examples,
        about="PMD-mean, the loss of Kimi k1.5: log(p / p_old) of the response is fitted to the "
        "advantage over tau, which holds the policy near the old one in later steps on a rollout "
        "without a clip. The baseline is the mean of the other responses, as in the authors' code.",
    ),
)
