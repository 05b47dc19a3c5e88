"""Describe every setting that affects what a run learns."""

import textwrap
from collections.abc import Collection, Mapping
from typing import Any

from jalign.optim.optimizer import READS
from jalign.options import OptimConfig, RunOptions
from jalign.options.rates import usual

WIDTH = 80  # columns
# textwrap breaks at ASCII spaces only: a no-break space keeps a name beside its value
_BESIDE = "\u00a0"


def described(options: RunOptions, given: Collection[str] = ()) -> list[str]:
    """Lines of at most 80 columns: the algorithm with all its hyper-parameters, the optimizer, the
    trained parameters, lengths, sampling, the output folder. Defaults are shown, too.

    Args:
      given: names of Python objects that replace what the options say (`Inputs.given`).
    """
    c, row = options, options.algorithm
    hyper = row.hyperparameters
    # weights of 0 switch terms off; among the others they would hide what is set
    read = {name: x for name, x in hyper.items() if x != 0}
    unused = [name for name in hyper if name not in read]
    response = "" if row.experience else f", responses of {c.data.max_response_len}"
    sampled = {"new tokens": c.sample.max_new_tokens, "temperature": c.sample.temperature}
    facts = {
        "algorithm": _listed({"": _name(c)} | read)
        + (f"; 0: {', '.join(unused)}" if unused else ""),
        "optimizer": "an object given from Python" if "optimizer" in given else _optimizer(c),
        "trained": _trained(c),
        "batches": f"{c.batch_size} examples each, "
        + (f"{c.steps} steps" if c.steps else f"{_short(c.epochs)} epochs")
        + f", prompts of at most {c.data.max_prompt_len} tokens{response} ({c.data.over_long})",
        "rollouts": _rollouts(c) if row.experience else "",
        "samples": c.sample.prompts and _listed({"prompts": c.sample.prompts} | sampled),
        "seed": f"{c.seed}",
        "out": c.out,
    }
    return [line for name, text in facts.items() if text for line in _wrapped(name, str(text))]


def _name(options: RunOptions) -> str:
    name, row = options.algorithm_name, options.algorithm
    return name if name == row.name else f"{row.name} ({name})"


def _optimizer(options: RunOptions) -> str:
    c, row = options.optim, options.algorithm
    rate, kind = usual(row, adapters=bool(options.model.lora or options.model.adapter))
    ordinary = f" (usual for {kind})" if rate == c.learning_rate and c.name == "adamw" else ""
    warm = f" after {c.warmup_steps} steps of warm-up" if c.warmup_steps else ""
    to = f" to {_short(c.final_lr_fraction)} of it" if c.final_lr_fraction else ""
    plain, always = OptimConfig(), READS[c.name]
    more = {
        name: getattr(c, name)
        for name in (*always, "clip_norm", "l1", "moments", "offload")
        if name in always or name == "clip_norm" or getattr(c, name) != getattr(plain, name)
    }
    if c.merging is not None:
        more |= {
            f"merging ({c.merging.method})": _listed(
                {"alpha": c.merging.alpha, "density": c.merging.density, "base": c.merging.base}
            )
        }
    return _listed(
        {"": f"{c.name}, learning rate {_short(c.learning_rate)}{ordinary}, {c.schedule}{to}{warm}"}
        | more
    )


def _trained(options: RunOptions) -> str:
    c = options.model
    what = "every parameter"
    if c.lora:
        scale = "rank-stabilised, " if c.lora.rank_stabilised else ""
        what = (
            f"LoRA of rank {c.lora.rank}, alpha {_short(c.lora.alpha)}, {scale}dropout "
            f"{_short(c.lora.dropout)}, on {c.lora.targets}"
        )
    elif c.adapter:
        what = f"the adapter {c.adapter}"
    quant = f", base in {c.quant}" if c.quant != "none" else ""
    reference = f", reference {c.reference}" if c.reference else ""
    return what + quant + reference


def _rollouts(options: RunOptions) -> str:
    c, row = options.rollout, options.algorithm
    assert row.experience is not None
    return _listed(
        {
            "prompts": c.prompts or options.batch_size,
            "responses": c.responses or row.experience.responses,
            "epochs": c.epochs,
            "new tokens": c.max_new_tokens,
            "temperature": c.temperature,
        }
        | ({"top_k": c.top_k} if c.top_k else {})
        | ({"top_p": c.top_p} if c.top_p < 1 else {})
    )


def _listed(values: Mapping[str, Any]) -> str:
    """Names beside their values, joined so that a line break never separates them."""
    return ", ".join(f"{name}{_BESIDE}{_short(x)}".strip(_BESIDE) for name, x in values.items())


def _short(value: Any) -> str:
    """
    >>> _short(1e-6), _short(0.0002), _short(32.0), _short("adamw")
    ('1e-06', '0.0002', '32', 'adamw')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(name: str, text: str) -> list[str]:
    """Text beside its name, with further lines indented below it; paths are not broken."""
    head = f"{name + ':':<11}"
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        # nor a path, which is there to be copied
        break_on_hyphens=False,
    )
    return [line.replace(_BESIDE, " ") for line in lines]
