"""A second response for every example: that of another prompt in the batch (KTO).

KTO (Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306, Sec. 4.1) estimates the KL divergence
of policy and reference from responses to prompts they do not belong to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jalign.data.examples import Examples, Lengths


def mismatched_ids(examples: Examples, indices: np.ndarray, row_len: int) -> list[int | None]:
    """For each example of a batch the next one (cyclically) with another prompt, if it fits.

    Args:
      examples: of one response each.
      indices: numbers of the examples of the batch.
      row_len: tokens of prompt and response together that a row takes.
    """
    lengths = examples.lengths.take(indices)
    prompts = [examples.segments(int(i))[0].tobytes() for i in indices]
    # numbers instead of the bytes: they are compared batch_size^2 times
    names = np.unique(prompts, return_inverse=True)[1]
    room, size = row_len - lengths.prompt_len, len(indices)
    ids: list[int | None] = []
    for j in range(size):
        order = (j + 1 + np.arange(size - 1)) % size
        fits = (names[order] != names[j]) & (lengths.response_lens[order, 0] <= room[j])
        # The first that fits, not a random one: the same on every host and after a resume.
        ids.append(int(indices[order[fits.argmax()]]) if fits.any() else None)
    return ids


def mismatched_lengths(
    lengths: Lengths, indices: np.ndarray, mismatched: Sequence[int | None]
) -> Lengths:
    """Lengths of the examples of a batch with the mismatched response as their second one; 0 where
    there is none.
    """
    response, scored = np.zeros((2, len(indices), 1), np.int32)
    for j, other in enumerate(mismatched):
        if other is not None:
            response[j], scored[j] = lengths.response_lens[other], lengths.scored_lens[other]
    batch = lengths.take(indices)
    return Lengths(
        batch.prompt_len,
        np.concatenate([batch.response_lens, response], 1),
        np.concatenate([batch.scored_lens, scored], 1),
    )


def worst_mismatched(lengths: Lengths, row_len: int) -> Lengths:
    """Lengths with the longest second response that any other example could give each of them."""
    room = np.maximum(row_len - lengths.prompt_len, 0)
    longest = (x.max(initial=0) for x in (lengths.response_lens, lengths.scored_lens))
    response, scored = (np.minimum(room, int(most)) for most in longest)
    return Lengths(
        lengths.prompt_len,
        np.stack([lengths.response_lens[:, 0], response], 1),
        np.stack([lengths.scored_lens[:, 0], scored], 1),
    )
