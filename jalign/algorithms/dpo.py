"""DPO, and other losses of the same margin of log-ratios."""

from jalign import losses
from jalign.core import Algorithm, Carry
from jalign.formats import PAIRS

DPO = (
    Algorithm(
        "dpo",
        losses.dpo,
        PAIRS,
        "2305.18290",
        about="Preference pairs against a fixed reference: the model that training "
        "starts from, or model.reference. beta 0.1 as in TRL.",
    ),
    Algorithm(
        # the same function as dpo: a second implementation would drift apart from it
        "cdpo",
        losses.dpo,
        PAIRS,
        "2305.18290",
        {"label_smoothing": 0.1},
        about="dpo that takes one label in ten to be wrong (conservative DPO, a note of the DPO "
        "authors): pairs stop teaching at a margin of log 9 / beta. TRL has it as "
        "label_smoothing, 0 by default.",
    ),
    Algorithm(
        "robust_dpo",
        losses.robust_dpo,
        PAIRS,
        "2403.00409",
        about="dpo without bias where one label in ten is wrong at random (label_smoothing 0.1; "
        "the noise is to be known). TRL has it as loss_type robust, with 0 by default, which is "
        "dpo.",
    ),
    Algorithm(
        "dpop",
        losses.dpop,
        PAIRS,
        "2402.13228",
        about="DPO-Positive (Smaug): dpo that charges the chosen response for falling below the "
        "reference. beta 0.3 and lam 50 as in the paper's main runs.",
    ),
    Algorithm(
        "beta_dpo",
        losses.beta_dpo,
        PAIRS,
        "2407.08639",
        # in checkpoints: a resumed run would otherwise pick pairs and beta by other statistics
        carry=Carry(("gap_mean", "gap_std")),
        batch_coupled=True,
        about="dpo whose beta follows the mean margin of each step's pairs, and which leaves out "
        "the pairs whose margin is unusual. Margins are of the whole step, on all devices and "
        "micro-batches, and their running mean and deviation are kept in checkpoints; in "
        "evaluation the pairs are chosen without noise.",
    ),
    Algorithm(
        # not batch-coupled: a pair's loss depends on earlier steps, not on the others of its own
        "epsilon_dpo",
        losses.epsilon_dpo,
        PAIRS,
        "2502.13177",
        carry=Carry(("relaxation",)),
        about="dpo with a beta of its own for each pair: smaller where a weaker penalty would "
        "separate the pair better, larger elsewhere, by a factor of 1 + epsilon. The mean over "
        "each step's pairs is where the next step starts, and is kept in checkpoints. It compares "
        "both models over the vocabulary, so the reference cannot be cached.",
    ),
    Algorithm(
        "cal_dpo",
        losses.cal_dpo,
        PAIRS,
        "2412.14516",
        about="dpo that also draws the log-ratio of the chosen response to 1 / 2 beta nats and "
        "that of the rejected one to -1 / 2 beta, so that the chosen does not become less likely.",
    ),
    Algorithm(
        # per token, since TRL's and HALOs' results are; the formula of the paper is ipo_sum
        "ipo",
        losses.ipo,
        PAIRS,
        "2310.12036",
        about="IPO over log-ratios averaged per token, as TRL and HALOs have it; the paper's own "
        "sums are ipo_sum. tau 0.1.",
    ),
    Algorithm(
        "ipo_sum",
        losses.ipo_sum,
        PAIRS,
        "2310.12036",
        about="IPO as the paper writes it, over summed log-ratios: the margin aimed at is 1 / (2 "
        "tau) nats per response, whatever its length. TRL averages over tokens (ipo).",
    ),
    Algorithm(
        # an alias: the family is complete under its own names
        "gpo_logistic",
        losses.dpo,
        PAIRS,
        "2402.05749",
        about="The logistic loss of the GPO family, which is dpo word for word, under the "
        "family's name.",
    ),
    Algorithm(
        "gpo_hinge",
        losses.gpo_hinge,
        PAIRS,
        "2402.05749",
        about="The hinge loss of the GPO family: pairs beyond a margin of 1 / beta teach nothing. "
        "TRL's loss_type hinge, with its beta 0.1; RSO's and SLiC's numbers are rso_hinge and "
        "online_slic.",
    ),
    Algorithm(
        "gpo_squared",
        losses.gpo_squared,
        PAIRS,
        "2402.05749",
        about="The squared loss of the GPO family: ipo_sum in units in which beta is a "
        "temperature, not a margin.",
    ),
    Algorithm(
        "gpo_exponential",
        losses.gpo_exponential,
        PAIRS,
        "2402.05749",
        about="The exponential loss of the GPO family. It trusts labels most of all: a wrong one "
        "dominates its step.",
    ),
    Algorithm(
        "gpo_truncated_quadratic",
        losses.gpo_truncated_quadratic,
        PAIRS,
        "2402.05749",
        about="The truncated quadratic loss of the GPO family: gpo_squared that leaves pairs "
        "beyond the margin alone.",
    ),
    Algorithm(
        "gpo_savage",
        losses.gpo_savage,
        PAIRS,
        "2402.05749",
        about="The Savage loss of the GPO family: bounded, so that pairs that are very wrong are "
        "given up.",
    ),
)
