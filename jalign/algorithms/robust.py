"""Rows for data with wrong labels, and `robust`, which makes such a row of any other."""

from dataclasses import replace

from jalign import losses
from jalign.core import Algorithm, Carry
from jalign.formats import BINARY, PAIRS

RELIABILITY = {"eta": "annotator"}
"""One reliability per annotator: what `losses.re_po` keeps between steps."""


def robust(row: Algorithm) -> Algorithm:
    """The row with its loss made robust to wrong labels by `losses.re_po`; `re_po+NAME` by name.

    One reliability per annotator (the column `annotator`) is kept in checkpoints. Auxiliary losses
    stay as they are.

    Raises:
      TypeError: a row whose data are neither pairs nor labeled responses, a loss of tokens, or one
        that compares the pairs of a batch with each other.
    """
    if row.format not in (PAIRS, BINARY) or row.experience:
        raise TypeError(
            f"re_po is for fixed pairs and labeled responses; {row.name} reads {row.data_kind}"
        )
    if row.loss_per_token:
        raise TypeError(
            f"re_po weighs the label of a response; the loss of {row.name} is per token"
        )
    if row.batch_coupled and row.format is PAIRS:
        raise TypeError(
            f"re_po flips the label of a pair by itself; the loss of {row.name} depends on the "
            "other pairs of the batch"
        )
    # a row with running values of its own keeps them beside the reliabilities
    names = row.carry.names if row.carry else ()
    if "eta" in names:
        raise TypeError(f"{row.name} is robust already")
    return replace(
        row,
        name=f"re_po+{row.name}",
        loss=losses.re_po(row.loss),
        carry=Carry((*names, *RELIABILITY), by=RELIABILITY),
        about=f"{row.name} that estimates, for each label, how likely it is right, and for each "
        f"annotator how often (RE-PO, arXiv 2509.24159). {row.about}",
    )


ROBUST = (
    replace(
        robust(Algorithm("dpo", losses.dpo, PAIRS)),
        name="re_po",
        paper="2509.24159",
        about="dpo whose labels are doubted: the posterior that a label is right weighs the loss "
        "of the label and of its opposite, and one reliability per annotator (the column "
        "annotator; without it one for all) is learned beside the policy and kept in checkpoints. "
        "Reliability 0.9 at first and a momentum of 0.9 as in the paper. re_po+NAME does the same "
        "to any row of pairs or labels, algorithms.robust(row) in Python. Held-out pairs are "
        "judged with the reliability of the start.",
    ),
    replace(
        robust(Algorithm("kto", losses.kto, BINARY, batch_coupled=True)),
        name="robust_kto",
        loss=losses.robust_kto,
        paper="2509.24159",
        about="re_po on kto: the label of a single response is doubted as that of a pair is there. "
        "kto's loss is bounded, so a label differs from its opposite by a factor of e at most, and "
        "its baseline is not below 0: where good responses lose log-prob too, their labels look "
        "wrong. robust_bco has a log-likelihood and a shift between both classes.",
    ),
    replace(
        robust(Algorithm("bco", losses.bco, BINARY, carry=Carry(("delta",)), batch_coupled=True)),
        name="robust_bco",
        loss=losses.robust_bco,
        paper="2509.24159",
        about="re_po on bco: the probability of the classifier and the reliability of the "
        "annotator say how likely the label of a single response is right.",
    ),
    Algorithm(
        "holder_dpo",
        losses.holder_dpo,
        PAIRS,
        "2505.17859",
        about="dpo by a Hölder divergence: pairs that the policy orders against their label with "
        "confidence have almost no gradient. gamma 2. jalign data --suspects RUN prints the "
        "estimate of the share of wrong labels that belongs to it.",
    ),
    Algorithm(
        "dr_dpo",
        losses.dr_dpo,
        PAIRS,
        "2407.07880",
        # one mean of the step: a mean per micro-batch would be another loss
        batch_coupled=True,
        about="Distributionally robust dpo: the pairs of a step with a high loss count less, by "
        "exp(-loss / beta_prime); beta_prime 1 as in the authors' runs.",
    ),
)
