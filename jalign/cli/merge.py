"""`jalign merge OUT --base MODEL --models A B ...`: several models of one base become one."""

import dataclasses
import os
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from jalign import __version__
from jalign.cli.export import DTYPES
from jalign.cli.merge_tokenizer import Reading, chosen
from jalign.config.read import parsed
from jalign.models import hub
from jalign.models import merge as merging
from jalign.models.adapters import peft
from jalign.models.decoder import Decoder
from jalign.parallel.paths import path_name
from jalign.run import folder as runs
from jalign.run.export import card, model_folder, readers
from jalign.run.policy import model_path

Params = dict[str, np.ndarray]

THRESHOLD = 1e-5  # of the sparsity that is printed
DEFAULTS = {"density": 0.2, "scale": 1.0, "trim": "tensor", "seed": 0, "t": 0.5}
APPLIES = {
    "linear": ("weights",),
    "ties": ("weights", "density", "scale", "trim"),
    "dare": ("weights", "drop", "seed"),
    "dare_ties": ("weights", "drop", "seed", "scale"),
    "slerp": ("t",),
}


class Base(NamedTuple):
    folder: Path
    model: Decoder
    params: Params
    reading: Reading


class Learned(NamedTuple):
    """What a model is, how it differs from the base (full-rank, by parameter), how it reads."""

    kind: str
    delta: Params
    reading: Reading | None


def merge(args: Sequence[str], console: Console) -> None:
    """Merge models that were trained apart from the same base, and write a Hugging Face folder with
    the base's tokenizer. Needs host memory for every model in float32.
    """
    options = check_args(args)
    numbers = _numbers(options)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    for warning in _lossy(options, numbers):
        say(f"warning: {warning}")
    base = _base(options.base)
    names = list(options.models)
    read = [_delta(name, base) for name in names]
    reading = chosen(base.reading, {n: r.reading for n, r in zip(names, read, strict=True)}, say)
    with jax.default_device(_host()):  # it has more room than a device
        for name, one in zip(names, read, strict=True):
            sparsity = merging.sparsity(one.delta, THRESHOLD)
            say(f"{name} ({one.kind}): sparsity {sparsity:.4f} (|delta| <= {THRESHOLD:g})")
        deltas = [merging.by_layer(one.delta) for one in read]
        for (a, first), (b, second) in combinations(zip(names, deltas, strict=True), 2):
            conflict = merging.sign_conflict(first, second)
            say(f"{a} and {b}: sign conflict {conflict:.4f}")
        merged = merging.stacked(_merged(options.method, deltas, numbers))
        whole = {name: base.params[name] + np.asarray(d) for name, d in merged.items()}
    state = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(whole[path_name(path)]), nnx.state(base.model)
    )
    nnx.update(base.model, state)
    kind = hub.stored_dtype(base.folder) if options.dtype == "base" else jnp.dtype(options.dtype)
    facts = {
        "jalign": __version__,
        "base_model": options.base,
        "models": names,
        "merge": {"name": options.method} | numbers,
    }
    with model_folder.written(options.out, options.overwrite) as out:
        ends, tokenizer = reading.ends, reading.tokenizer
        settings = {"eos_token_id": readers.one_or_all(ends)}
        hub.save(base.model, out, tokenizer, dtype=kind, settings=settings)
        readers.write_generation(out, str(base.folder), ends, tokenizer)
        usage = card.usage(options.out, "language model", chat=bool(tokenizer.chat_template))
        card.write(out, facts, Path(options.out).name, usage, "transformers")
    how = ", ".join(f"{k}={v}" for k, v in numbers.items())
    say(f"{options.method} of {len(names)} ({how}) written to {options.out}")
    say(f"weights in {kind.name}")


def check_args(args: Sequence[str]) -> Namespace:
    """The options, if they fit each other."""
    options = parsed(_parser(), args, lambda values: values)
    if options.method is None:
        options.method = "ties" if len(options.models) > 1 else "linear"
    _numbers(options)
    options.out = os.path.expanduser(options.out)
    for name in (options.base, *options.models):
        if Path(name).resolve() == Path(options.out).resolve():
            raise ValueError(f"{options.out} would be written over the model {name}")
    model_folder.check(options.out, options.overwrite)
    return options


def _parser() -> ArgumentParser:
    def of(option: str) -> str:
        return "[" + ", ".join(m for m, applies in APPLIES.items() if option in applies) + "] "

    parser = ArgumentParser(prog="jalign merge", description=merge.__doc__, exit_on_error=False)
    add = parser.add_argument
    add("out", help="folder to write")
    add("--base", required=True, help="what all were trained from: folder, hub name, or embedded")
    add(
        "--models",
        required=True,
        nargs="+",
        type=str,
        help="run folders, PEFT adapters of the base, Hugging Face folders or hub names",
    )
    add(
        "--method",
        choices=list(APPLIES),
        help="ties for several models, linear (the sum, nothing left out) for one",
    )
    add("--weights", nargs="+", type=float, help=of("weights") + "one per model; 1 for each")
    add("--density", type=float, help=of("density") + "fraction of each delta that is kept; 0.2")
    add("--scale", type=float, help=of("scale") + "factor of the merged delta; 1")
    add(
        "--trim",
        choices=["tensor", "global"],
        help=of("trim") + "count entries per tensor or over the whole model; tensor",
    )
    add("--drop", type=float, help=of("drop") + "probability that an entry is dropped")
    add("--seed", type=int, help=of("seed") + "of what is dropped; 0")
    add("--t", type=float, help=of("t") + "0 is the first model, 1 the second; 0.5")
    add("--dtype", default="base", choices=DTYPES, help="of the weights; base: that of the base")
    add(
        "--overwrite",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="replace a model that OUT holds",
    )
    return parser


def _numbers(options: Namespace) -> dict[str, Any]:
    """The method's own options, all of them; ValueError for one that does not apply to it."""
    applies, method = APPLIES[options.method], options.method
    known = dict.fromkeys(option for applying in APPLIES.values() for option in applying)
    given = {name: options[name] for name in known if options[name] is not None}
    for name in given:
        if name not in applies:
            raise ValueError(
                f"--{name} does not apply to {method}, which reads "
                + ", ".join(f"--{option}" for option in applies)
            )
    n = len(options.models)
    if method == "slerp" and n != 2:
        raise ValueError(f"slerp goes from one model to another: --models needs two, got {n}")
    if "drop" in applies and "drop" not in given:
        raise ValueError(f"{method} needs --drop, the probability that an entry is dropped")
    filled = DEFAULTS | {"weights": [1.0] * n} | given
    return {name: filled[name] for name in applies}


def _lossy(options: Namespace, numbers: dict[str, Any]) -> list[str]:
    """What this merge leaves out of the models that nobody may have meant."""
    warnings = []
    one = len(options.models) == 1
    density = numbers.get("density", 1.0)
    if density < 1 and one:
        warnings.append(
            f"{options.method} keeps {density:g} of what {options.models[0]} learned; "
            "--method linear takes all of it, and so does jalign export RUN OUT of a run"
        )
    if "drop" in numbers and one:
        warnings.append(f"{options.method} of one model: a {numbers['drop']:g} of it is dropped")
    total = sum(numbers.get("weights", [1.0]))
    if options.method in ("linear", "dare") and abs(total - 1) > 1e-6:
        warnings.append(
            f"the weights add up to {total:g}: what the models learned is added, not averaged "
            "(--weights that add up to 1 average)"
        )
    return warnings


def _merged(method: str, deltas: list[Any], numbers: dict[str, Any]) -> Any:
    numbers = dict(numbers)
    if "drop" in numbers:
        key = jax.random.key(numbers.pop("seed"))
        deltas = merging.dare(deltas, key, drop=numbers.pop("drop"))
    if method == "slerp":
        return merging.slerp(deltas[0], deltas[1], numbers["t"])
    if method in ("linear", "dare"):
        return merging.linear(deltas, numbers["weights"])
    if method == "dare_ties":
        numbers["density"] = 1.0  # dropping was the trimming
    return merging.ties(deltas, **numbers)


def _host() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return None


def _base(name: str) -> Base:
    folder = hub.find(model_path(name))
    model = hub.load(folder)
    return Base(folder, model, _params(model), Reading.of(folder))


def _params(model: Decoder) -> Params:
    """Every parameter in float32 on the host, under its name; adapters are left out."""
    state = nnx.state(model, nnx.Not(nnx.LoRAParam))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {path_name(path): np.asarray(x, np.float32) for path, x in leaves}


def _delta(name: str, base: Base) -> Learned:
    reading = None
    if runs.is_run(name):
        _, model, params, step = runs.weights(name)
        decoder = nnx.merge(*model.sampling_weights(params))
        kind, start = f"run, step {step}", hub.find(model.path)
        reading = Reading.of(start, model.tokenizer)
    elif (Path(name).expanduser() / peft.CONFIG).is_file():
        decoder = peft.load_adapter(base.model, name)
        kind, start = "adapter", base.folder
    else:
        decoder = hub.load(model_path(name))
        kind, start = "model", None
    source = None if reading else Path(name) if Path(name).is_dir() else hub.find(name)
    if source and (source / "tokenizer.json").is_file():
        reading = Reading.of(source)
    _same_architecture(name, decoder, base.model)
    learned = merging.full_rank(decoder)
    if not learned:
        own = _params(decoder)
    elif start is not None and start.resolve() == base.folder.resolve():
        own = base.params
    else:  # read anew: a run may hold its frozen weights in bfloat16
        own = _params(hub.load(start or name))
    if decoder.replaced:  # an adapter brought tables of its own
        tables = _params(decoder)
        own = own | {k: x for k, x in tables.items() if not k.startswith("layers.") and k in own}
    delta = {k: x - base.params[k] for k, x in own.items()}
    delta |= {k: delta[k] + np.asarray(d) for k, d in learned.items()}
    return Learned(kind, delta, reading)


def _same_architecture(name: str, model: Decoder, base: Decoder) -> None:
    """Then names and shapes of the parameters are the same too: `hub.load` sees to that."""
    if model.value is not None:
        raise ValueError(f"{name} has a scalar head: it is no language model to merge")
    ours, theirs = dataclasses.asdict(base.spec), dataclasses.asdict(model.spec)
    del ours["context"]  # nothing is computed with it
    problems = [f"{k} is {theirs[k]!r} instead of {v!r}" for k, v in ours.items() if v != theirs[k]]
    if problems:
        raise ValueError(f"{name} is another architecture than the base: {', '.join(problems)}")
