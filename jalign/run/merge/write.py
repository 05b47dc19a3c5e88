"""Merge models with a common base into a Hugging Face folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jalign import __version__
from jalign.models import hub
from jalign.models import merge as merging
from jalign.options.merge import MergeConfig
from jalign.parallel.paths import path_name
from jalign.run.export import card, model_folder, readers
from jalign.run.merge.deltas import Base, Delta, Params, deltas_of
from jalign.run.merge.tokenizer import TextFormat, select_format

SPARSITY_THRESHOLD = 1e-5  # |delta| up to which an entry counts as unchanged


def check_out(options: MergeConfig) -> None:
    """Raise ValueError if OUT may not be written, or is one of the models."""
    out = Path(os.path.expanduser(options.out))
    for name in (options.base, *options.models):
        if Path(name).resolve() == out.resolve():
            raise ValueError(f"{out} would be written over the model {name}")
    model_folder.check(str(out), options.overwrite)


def merge(options: MergeConfig, say: Callable[[str], object] = lambda text: None) -> None:
    """Write the merged model.

    Args:
      say: called with warnings, the sparsity of each delta, and the rate of sign conflicts.

    Raises:
      ValueError: the models are incompatible, or OUT may not be written.
    """
    # before gigabytes are read
    check_out(options)
    for warning in options.warnings():
        say(f"warning: {warning}")
    base = Base.of(options.base)
    names = list(options.models)
    deltas = deltas_of(names, base)
    formats = {name: delta.format for name, delta in zip(names, deltas, strict=True)}
    text_format = select_format(base.format, formats, say)
    with jax.default_device(_host()):  # all models at once rarely fit one accelerator
        params = _merged_params(options, base, names, deltas, say)
    state = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(params[path_name(path)]), nnx.state(base.model)
    )
    nnx.update(base.model, state)
    dtype = hub.stored_dtype(base.folder) if options.dtype == "base" else jnp.dtype(options.dtype)
    _write(options, base, text_format, dtype)
    hyper = ", ".join(f"{k}={v}" for k, v in options.hyper().items())
    say(f"{options.method} of {len(names)} ({hyper}) written to {os.path.expanduser(options.out)}")
    say(f"weights in {dtype.name}")


def _merged_params(
    options: MergeConfig,
    base: Base,
    names: Sequence[str],
    deltas: Sequence[Delta],
    say: Callable[[str], object],
) -> Params:
    for name, (kind, delta, _) in zip(names, deltas, strict=True):
        sparsity = merging.sparsity(delta, SPARSITY_THRESHOLD)
        say(f"{name} ({kind}): sparsity {sparsity:.4f} (|delta| <= {SPARSITY_THRESHOLD:g})")
    trees = [merging.by_layer(delta.delta) for delta in deltas]
    for (a, first), (b, second) in combinations(zip(names, trees, strict=True), 2):
        say(f"{a} and {b}: sign conflict {merging.sign_conflict(first, second):.4f}")
    assert options.method is not None
    merged = merging.stacked(merge_deltas(options.method, trees, options.hyper()))
    return {name: base.params[name] + np.asarray(d) for name, d in merged.items()}


def merge_deltas(
    method: str, deltas: Sequence[merging.Tree], hyper: dict[str, Any]
) -> merging.Tree:
    """Merge deltas by a method of `options.merge.READS` with all its hyper-parameters."""
    hyper = dict(hyper)
    if "drop" in hyper:
        deltas = merging.dare(deltas, jax.random.key(hyper.pop("seed")), drop=hyper.pop("drop"))
    if method == "slerp":
        return merging.slerp(deltas[0], deltas[1], hyper["t"])
    if method in ("linear", "dare"):
        return merging.linear(deltas, hyper["weights"])
    if method == "dare_ties":
        hyper["density"] = 1.0  # DARE has trimmed already
    return merging.ties(deltas, **hyper)


def _write(options: MergeConfig, base: Base, text_format: TextFormat, dtype: jnp.dtype) -> None:
    out, (tokenizer, eos) = os.path.expanduser(options.out), text_format
    facts = {
        "jalign": __version__,
        "base_model": options.base,
        "models": list(options.models),
        "merge": {"name": options.method} | options.hyper(),
    }
    with model_folder.written(out, options.overwrite) as folder:
        settings = {"eos_token_id": readers.one_or_all(eos)}
        hub.save(base.model, folder, tokenizer, dtype=dtype, settings=settings)
        readers.write_generation(folder, str(base.folder), eos, tokenizer)
        usage = card.usage(out, "language model", chat=bool(tokenizer.chat_template))
        card.write(folder, facts, Path(out).name, usage, "transformers")


def _host() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS without cpu
        return None
