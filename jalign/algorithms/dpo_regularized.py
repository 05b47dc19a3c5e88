"""DPO with other divergences, lengths, weights or token-level terms."""

from jalign import losses
from jalign.algorithms._shared import LENGTH
from jalign.core import Algorithm
from jalign.formats import PAIRS

DPO_REGULARIZED = (
    Algorithm(
        "f_dpo_forward_kl",
        losses.f_dpo_forward_kl,
        PAIRS,
        "2309.16240",
        about="dpo whose implicit reward belongs to the forward KL divergence to the reference "
        "(TRL: f_divergence_type forward_kl): the policy keeps all that the reference writes.",
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
        # alpha is the authors': a value copied from TRL must become 1 - alpha
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
        # no length tag: it reads lengths, which `taxonomy` sees
        "r_dpo",
        losses.r_dpo,
        PAIRS,
        "2403.19159",
        about="dpo that credits the longer response with what its length explains, so that length "
        "is not what is learned. alpha is per token; tune it to the spread of lengths in the data.",
    ),
    Algorithm(
        # with the tag: it reads masks and no lengths
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
        "rainbow_po",
        losses.rainbow_po,
        PAIRS,
        "2410.04203",
        about="dpo with the improvements that add up in the authors' comparison: log-ratios "
        "averaged per token, a reference mixed with a constant margin, and Mallows-DPO's weight "
        "for prompts that the reference is sure of. max_entropy is the log of the model's "
        "vocabulary; the authors' sampling of pairs is a matter of the data.",
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
        # KL over the vocabulary needs both models in one pass, so the reference cannot be cached
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
)
