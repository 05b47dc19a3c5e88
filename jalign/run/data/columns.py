"""Check the data columns that a loss reads, and derive missing ones where possible."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jalign.data.density import density_ratio
from jalign.data.examples import Examples
from jalign.models import hub
from jalign.options import RunOptions
from jalign.run.policy import model_path


def _density_ratios(options: RunOptions, examples: Examples) -> np.ndarray:
    features = _prompt_embeddings(options, examples)
    return density_ratio(features, np.asarray(examples.extras["label"]))


def _prompt_embeddings(options: RunOptions, examples: Examples) -> np.ndarray:
    """[examples, width] mean of the model's own token embeddings over each prompt."""
    # one tensor of the folder, so that data are read without the model
    table = hub.embedding(model_path(options.model.path))
    prompts = [examples.segments(i)[0] for i in range(len(examples))]
    return np.stack([table[p].mean(0) if len(p) else np.zeros(table.shape[1]) for p in prompts])


def _one_annotator(options: RunOptions, examples: Examples) -> np.ndarray:
    return np.zeros(len(examples), np.int32)


DERIVED: dict[str, Callable[[RunOptions, Examples], np.ndarray]] = {
    "density_ratio": _density_ratios,
    "annotator": _one_annotator,
}
"""Columns that are computed if a loss reads them and the data lack them."""

REMEDIES = {"chosen_prob": "; data.soft_labels computes it from margin"}
"""Remedies for a missing column, appended to the error."""


def add_loss_columns(options: RunOptions, examples: Examples) -> None:
    """Add or check every column that the loss reads from the data, in `examples.extras`.

    Raises:
      ValueError: columns are missing; the message names them.
    """
    algorithm = options.algorithm
    read = set(algorithm.inputs()) & algorithm.format.data_fields
    for name in sorted((read & set(DERIVED)) - set(examples.extras)):
        examples.extras[name] = DERIVED[name](options, examples)
    if missing := sorted(read - set(examples.extras)):
        remedy = "".join(REMEDIES.get(name, "") for name in missing)
        raise ValueError(
            f"{algorithm.name} reads {', '.join(missing)} from the data, which have "
            f"{', '.join(sorted(examples.extras)) or 'no such columns'}{remedy}"
        )
    annotators, carry = len(examples.report.annotators), algorithm.carry
    if "annotator" in read and carry and annotators > carry.size:
        raise ValueError(
            f"the data have {annotators:,} annotators, and {algorithm.name} keeps the reliability "
            f"of {carry.size:,}: join rare ones in the column, or rename it to have one reliability"
        )
    attributes = examples.report.attributes
    # checked here, because the number of attributes is known only from the data
    if "attribute_ratings" in read and len(attributes) != options.model.heads:
        raise ValueError(
            f"the data rate {len(attributes)} attributes ({', '.join(attributes)}), but "
            f"model.heads is {options.model.heads}"
        )
