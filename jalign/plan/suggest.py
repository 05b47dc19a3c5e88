"""Suggest changes that make a run fit in memory, cheapest first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from jalign.options import LoraConfig, RunOptions
from jalign.plan.data import LIST
from jalign.plan.report import Report
from jalign.plan.run import plan_run
from jalign.plan.targets import Target
from jalign.run import rollouts as build_online
from jalign.run.batches import reads_mismatched
from jalign.run.devices import usual_tokens


def suggestions(options: RunOptions, goal: Target) -> Iterator[tuple[str, RunOptions]]:
    """(description, changed options), each change added to the earlier ones: first those that keep
    the numerics, cheapest first.
    """
    words: list[str] = []

    def changed(text: str, **sections: Any) -> tuple[str, RunOptions]:
        nonlocal options
        options = replace(options, **sections)
        words.append(text)
        return ", ".join(words), options

    mesh = options.mesh
    split = goal.devices // (goal.slices * mesh.tensor * mesh.context * mesh.expert)
    if mesh.data != goal.slices or mesh.fsdp not in (-1, split):
        # between slices only gradients travel: their network is far slower than the links within
        rest = replace(mesh, data=goal.slices, fsdp=-1)
        yield changed("parameters split over all devices (mesh.fsdp: -1)", mesh=rest)
    if options.model.remat != "full":
        yield changed("model.remat: full", model=replace(options.model, remat="full"))
    least = _least_tokens(options)
    if (options.data.max_tokens or usual_tokens(goal.platform)) > least:
        fewer = replace(options.data, max_tokens=least)
        yield changed(f"one example at a time (data.max_tokens: {least})", data=fewer)
    if options.reference == "step" and not options.model.lora:
        with suppress(ValueError):  # not every algorithm allows it
            yield changed("the reference read once (reference: cached)", reference="cached")
    on_host = goal.platform == "tpu"  # JAX cannot compile host offload ahead of time for others
    if on_host and options.model.reference_offload == "none":
        with suppress(ValueError):  # there may be no reference
            model = replace(options.model, reference_offload="host")
            yield changed(
                "the reference in the host's memory (model.reference_offload: host)", model=model
            )
    full = not (options.model.lora or options.model.adapter)  # adapters have few moments
    if on_host and full and options.optim.offload == "none":
        with suppress(ValueError):
            optim = replace(options.optim, offload="host")
            yield changed("the optimizer in the host's memory (optim.offload: host)", optim=optim)
    if full and options.optim.moments == "float32":
        with suppress(ValueError):  # not every optimizer has moments
            optim = replace(options.optim, moments="int8")
            yield changed("moments in 8 bits (optim.moments: int8)", optim=optim)
    if full:
        with suppress(ValueError):
            # the frozen base under the adapters is then the reference
            offload = options.model.reference_offload if options.model.reference else "none"
            model = replace(options.model, lora=LoraConfig(), reference_offload=offload)
            yield changed("LoRA (model.lora: {})", model=model)
    if options.model.quant == "none":
        with suppress(ValueError):
            yield changed("QLoRA (model.quant: nf4)", model=replace(options.model, quant="nf4"))


def _least_tokens(options: RunOptions) -> int:
    """Tokens of a micro-batch that holds one example of the longest allowed length."""
    row = options.algorithm
    k, response = row.format.k or LIST, options.data.max_response_len
    if row.experience:
        plan = build_online.spec_of(options)
        k, response = row.format.k or plan.responses, plan.response_len
    k += reads_mismatched(options)
    # not `usual_multiple()`: it asks the device in this machine
    multiple = 128
    return -(-(options.data.max_prompt_len + k * response + 1) // multiple) * multiple


def suggested_reports(options: RunOptions, report: Report) -> Iterator[tuple[str, Report]]:
    """(description, report of the changed run) for a run that does not fit, until one fits."""
    if report.fits:
        return
    for words, changed in suggestions(options, report.target):
        # compiled anew: how changes add up is not known without the compiler
        other = plan_run(changed, report.target, report.config)
        yield words, other
        if other.fits:
            return
