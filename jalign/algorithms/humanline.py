"""`humanline`, which clamps the log-ratios of tokens that any row learns from."""

from __future__ import annotations

from dataclasses import replace

from jalign import losses
from jalign.core import Algorithm, arrays_of

# The reference that the log-ratio of a token is clamped against follows the policy.
SYNC = {"ref_sync_steps": 2}


def humanline(row: Algorithm) -> Algorithm:
    """The row with its loss wrapped by `losses.humanline`; `humanline+NAME` by name.

    The reference of the log-ratios, where the loss reads one, becomes the policy every
    `ref_sync_steps` 2 steps.

    Raises:
      TypeError: a row whose loss reads no log-ratio, one that couples examples, whose arrays must
        be numbers of responses, or one whose data have no log-probs of tokens.
    """
    if row.batch_coupled:
        raise TypeError(
            f"humanline clips tokens; the loss of {row.name} depends on the other examples of the "
            "step, which are known by numbers of whole responses only"
        )
    loss = losses.humanline(row.loss)
    if unknown := sorted(set(arrays_of(loss)) - row.format.fields):
        raise TypeError(
            f"humanline clips tokens; {row.data_kind} data, which {row.name} reads, have no array "
            f"{', '.join(unknown)}: it is for rows of pairs, labeled responses and samples"
        )
    # of samples the base is the policy that drew them, and the reference is that of a KL
    sync = SYNC if any(name.startswith("ref_") for name in arrays_of(row.loss)) else {}
    follows = (
        "a reference that follows the policy. The authors copy the policy before each step is "
        "taken, so that the ratio is that of one step; here a copy every ref_sync_steps 2 steps is "
        "the nearest"
    )
    # further than the row's own defaults: a reference that never moves is not the method
    return replace(
        row,
        name=f"humanline+{row.name}",
        loss=loss,
        defaults={**row.defaults, **sync},
        about=f"{row.name} whose log-ratios are clamped token by token (humanline, arXiv "
        f"2509.24207), against {follows if sync else 'the policy that sampled'}. {row.about}",
    )
