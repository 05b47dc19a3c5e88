"""Rows that learn from preference pairs against a reference."""

from jalign import losses
from jalign.algorithms._parts import LENGTH, NASH, nll
from jalign.core import Algorithm, Carry
from jalign.formats import PAIRS

WITH_REFERENCE = (
    Algorithm(
        "dpo",
        losses.dpo,
        PAIRS,
        "2305.18290",
        about="Preference pairs against a reference that stands still: the model that training "
        "starts from, or model.reference. beta 0.1 as in TRL.",
    ),
    Algorithm(
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
        carry=Carry(("gap_mean", "gap_std")),
        batch_coupled=True,
        about="dpo whose beta follows the mean margin of each step's pairs, and which leaves out "
        "the pairs whose margin is unusual. Margins are of the whole step, on all devices and "
        "micro-batches, and their running mean and deviation are kept in checkpoints; in "
        "evaluation the pairs are chosen without noise.",
    ),
    Algorithm(
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
    Algorithm(
        "f_dpo_forward_kl",
        losses.f_dpo_forward_kl,
        PAIRS,
        "2309.16240",
        about="dpo whose implicit reward belongs to the forward KL divergence to the reference "
        "(TRL: f_divergence_type forward_kl): the policy keeps all that the reference says.",
    ),
    Algorithm(
        "f_dpo_js",
        losses.f_dpo_js,
        PAIRS,
        "2309.16240",
        about="dpo whose implicit reward belongs to the Jensen-Shannon divergence to the "
        "reference (TRL: f_divergence_type js_divergence).",
    ),
    Algorithm(
        "f_dpo_alpha",
        losses.f_dpo_alpha,
        PAIRS,
        "2309.16240",
        about="dpo whose implicit reward belongs to the alpha-divergence to the reference (TRL: "
        "f_divergence_type alpha_divergence, with the coefficient 1 - alpha).",
    ),
    Algorithm(
        "f_dpo_reverse_kl",
        losses.dpo,
        PAIRS,
        "2309.16240",
        about="The member of the f-DPO family with the reverse KL divergence, which is dpo "
        "itself, under the family's name.",
    ),
    Algorithm(
        "r_dpo",
        losses.r_dpo,
        PAIRS,
        "2403.19159",
        about="dpo that credits the longer response with what its length explains, so that length "
        "is not what is learnt. alpha is per token; tune it to the spread of lengths in the data.",
    ),
    Algorithm(
        "ld_dpo",
        losses.ld_dpo,
        PAIRS,
        "2409.06411",
        tags=LENGTH,
        about="dpo that discounts, by alpha, the tokens of the longer response beyond the length "
        "of the shorter one.",
    ),
    Algorithm(
        "dpo_norm",
        losses.dpo_norm,
        PAIRS,
        "2411.15124",
        about="dpo over log-ratios averaged per token (length-normalized, as Tulu 3 trains): beta "
        "5 there is what about 0.1 is over sums.",
    ),
    Algorithm(
        "wpo",
        losses.wpo,
        PAIRS,
        "2406.11827",
        about="dpo that weighs a pair by how likely the policy itself is to write it, so that "
        "off-policy pairs teach as on-policy ones would. beta 0.01 as in the paper.",
    ),
    Algorithm(
        "tdpo1",
        losses.tdpo1,
        PAIRS,
        "2404.11999",
        about="dpo with the difference of the sequential KL divergences, token by token over the "
        "vocabulary, taken off the margin: the first form of the paper.",
    ),
    Algorithm(
        "tdpo2",
        losses.tdpo2,
        PAIRS,
        "2404.11999",
        about="tdpo1 with a weight alpha on the divergences, and no gradient through that of the "
        "chosen response: the form that the paper recommends.",
    ),
    Algorithm(
        "apo_zero",
        losses.apo_zero,
        PAIRS,
        "2408.06266",
        about="Anchored preferences where the chosen responses are better than what the model "
        "writes: chosen up, rejected down, each against the reference.",
    ),
    Algorithm(
        "apo_down",
        losses.apo_down,
        PAIRS,
        "2408.06266",
        about="Anchored preferences where the model already writes better than the chosen "
        "responses: both go down, the rejected one further.",
    ),
    Algorithm(
        "aot",
        losses.aot,
        PAIRS,
        "2406.05882",
        batch_coupled=True,
        about="Optimal transport of margins: sorted margins of the policy against sorted margins "
        "of the reference, over the pairs of the whole step, on all devices and micro-batches; "
        "TRL sorts those of one device.",
    ),
    Algorithm(
        "aot_unpaired",
        losses.aot_unpaired,
        PAIRS,
        "2406.05882",
        batch_coupled=True,
        about="Optimal transport of rewards: sorted chosen against sorted rejected log-ratios of "
        "the whole step, so that which two responses make a pair does not matter. The data still "
        "come as pairs.",
    ),
    Algorithm(
        "exo",
        losses.exo_pair,
        PAIRS,
        "2402.00856",
        about="The reverse KL divergence between what the policy and the labels say of a pair "
        "(EXO-pref); label_smoothing 0.001 as in TRL, since a hard label has no finite "
        "divergence.",
    ),
    Algorithm(
        "nca",
        losses.nca_pair,
        PAIRS,
        "2402.05369",
        about="Noise contrast of each response with the reference by itself, so that the chosen "
        "one does not become less likely. beta 0.01 is the paper's; TRL's nca_pair has 0.1.",
    ),
    Algorithm(
        "info_nca",
        losses.dpo,
        PAIRS,
        "2402.05369",
        {"beta": 0.01},
        about="InfoNCA of two responses with hard labels, which is dpo at the paper's beta 0.01.",
    ),
    Algorithm(
        "bco_pair",
        losses.bco_pair,
        PAIRS,
        "2404.04656",
        carry=Carry(("delta",)),
        batch_coupled=True,
        about="A classifier of chosen against rejected responses whose logit is the implicit "
        "reward above a running shift, kept in checkpoints. bco_pair of TRL 1.16 has no shift; "
        "here momentum 1 would keep it where it starts.",
    ),
    Algorithm(
        "rso",
        losses.dpo,
        PAIRS,
        "2309.06657",
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
        "tr_dpo",
        losses.dpo,
        PAIRS,
        "2404.09656",
        {"ref_sync_steps": 512, "ref_mixup_alpha": 0.6},
        about="dpo whose reference follows the policy: every ref_sync_steps 512 steps it becomes "
        "ref_mixup_alpha 0.6 of the policy and 0.4 of itself, which is TRL's pair of defaults. "
        "The paper updates either softly (ref_mixup_alpha below 1) or hard (a copy every so many "
        "steps: ref_mixup_alpha 1), not both at once.",
    ),
    Algorithm(
        "sdpo",
        losses.dpo,
        PAIRS,
        "2403.19270",
        {"ref_sync_steps": 512},
        about="Stepwise DPO: dpo whose reference becomes the policy itself every ref_sync_steps "
        "512 optimizer steps, wherever the data stand. The paper divides the data into chunks, "
        "ordered from easy to hard, and trains on one after the other: for that set data.shuffle "
        "false, ref_sync_steps to the steps of a chunk, and mind that optimizer state and "
        "learning rate schedule run on.",
    ),
)
