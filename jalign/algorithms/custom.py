"""Rows that users write: in a file or module, or passed as a Python object."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jalign.core import Algorithm, Format, LossFn, arrays_of, did_you_mean, mean_over_tokens
from jalign.core.reductions import SumOverLongest, sum_over_longest
from jalign.formats import FORMATS
from jalign.user_code import attribute, digest_of_files, name_of, source_files

JALIGN = Path(__file__).absolute().parents[1]


def from_loss(loss: LossFn, format: Format | str | None = None) -> Algorithm:
    """A row of a loss alone: the mean over examples, or over tokens if the loss has one value per
    token; no auxiliary losses besides those of its format.

    Args:
      format: a format or its name; by default the one format that has all arrays of the loss.

    Raises:
      ValueError: there is no such format.
      TypeError: no format has all of its arrays (the nearest name is given), several have, or the
        loss learns from samples, which needs an experience.
    """
    arrays, name = set(arrays_of(loss)), loss.__name__
    if isinstance(format, str):
        if format not in FORMATS:
            raise ValueError(f"no format {format!r}{did_you_mean(format, FORMATS)}")
        format = FORMATS[format]
    # a joint prompt has the arrays of pairs, and is asked for by name only
    inferred = [f for f in FORMATS.values() if not f.joint_prompt]
    candidates = [format] if format else [f for f in inferred if arrays <= f.fields]
    if not candidates:  # the nearest format's error names the array and what is near
        candidates = [max(inferred, key=lambda f: len(arrays & f.fields))]
    if len(candidates) > 1:
        names = [f.name for f in candidates]
        raise TypeError(
            f"the arrays of {name} ({', '.join(sorted(arrays))}) are those of several formats "
            f"({', '.join(names)}): write a row, such as row = Algorithm({name!r}, {name}, "
            f"jalign.formats.{names[0].upper()})"
        )
    row = Algorithm(name, loss, candidates[0])
    if row.format.policy_samples:
        raise TypeError(
            f"{name} learns from samples of the policy: write a row that defines how rewards "
            f"become its arrays, such as row = Algorithm({name!r}, {name}, jalign.formats.SAMPLES, "
            "experience=Experience(jalign.experience.group_normalized, responses=8))"
        )
    # the mean over examples would not broadcast to [B, R]
    return replace(row, reduce=mean_over_tokens) if row.loss_per_token else row


def from_file(text: str) -> Algorithm:
    """The row, or the loss, that `file.py:name` or `package.module:name` names.

    Raises:
      ValueError: no such file, module or name.
      TypeError: it is neither an Algorithm nor a loss that a row can be made of.
    """
    value = attribute(text, "Algorithm or loss function", _is_row_or_loss)
    return value if isinstance(value, Algorithm) else from_loss(value)


def _is_row_or_loss(value: Any) -> bool:
    return isinstance(value, Algorithm) or inspect.isfunction(value)


def registered_name(row: Algorithm, catalogue: Mapping[str, Algorithm]) -> str:
    """The name by which this process finds a row again: that of the catalogue, or `here:NAME` for a
    row that was passed as an object.
    """
    # a run saves hyper-parameters beside the name, so they do not make it another row
    unset = replace(row, hyper={})
    of_run = isinstance(row.reduce, SumOverLongest)  # a run has filled in its longest response
    listed = replace(unset, reduce=sum_over_longest) if of_run else unset
    return row.name if listed == catalogue.get(row.name) else name_of(unset, row.name)


def code_digest(name: str, row: Algorithm) -> str | None:
    """A digest of the files that define a user's row and its functions; None for a row of the
    catalogue. What those files import is not part of it.
    """
    if ":" not in name:
        return None
    where = name.rpartition(":")[0]
    files = {Path(where).expanduser().absolute()} if where.endswith(".py") else set()
    functions = [row.loss, *(aux.loss for aux in row.aux_losses.values())]
    functions += [row.experience.fn] if row.experience else []
    files |= source_files(*functions)
    # jalign's own files change with its version; only a user's code is compared here
    return digest_of_files(path for path in files if JALIGN not in path.parents)
