"""What makes a run fit, in the order of what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from jalign.config import Config
from jalign.options import LoraConfig
from jalign.plan.data import LIST
from jalign.plan.targets import Target
from jalign.run import roles as build
from jalign.run import rollouts as build_online


def suggestions(config: Config, goal: Target) -> Iterator[tuple[str, Config]]:
    """(words, changed config), each change on top of those before it: first those that leave the
    mathematics as it is, the cheapest first.
    """
    words: list[str] = []

    def said(text: str, **sections: Any) -> tuple[str, Config]:
        nonlocal config
        config = replace(config, **sections)
        words.append(text)
        return ", ".join(words), config

    mesh = config.mesh
    split = goal.devices // (goal.slices * mesh.tensor * mesh.context)
    if mesh.data != goal.slices or mesh.fsdp not in (-1, split):
        rest = replace(mesh, data=goal.slices, fsdp=-1)
        yield said("parameters split over all devices (mesh.fsdp: -1)", mesh=rest)
    if config.model.remat != "full":
        yield said("model.remat: full", model=replace(config.model, remat="full"))
    least = _least_tokens(config)
    if (config.data.max_tokens or build.usual_tokens(goal.platform)) > least:
        fewer = replace(config.data, max_tokens=least)
        yield said(f"one example at a time (data.max_tokens: {least})", data=fewer)
    if config.reference == "step" and not config.model.lora:
        with suppress(ValueError):  # not every algorithm can have it
            yield said("the reference read once (reference: cached)", reference="cached")
    on_host = goal.platform == "tpu"  # JAX cannot plan it for others
    if on_host and config.model.reference_offload == "none":
        with suppress(ValueError):  # there need be no reference
            model = replace(config.model, reference_offload="host")
            yield said(
                "the reference in the host's memory (model.reference_offload: host)", model=model
            )
    full = not (config.model.lora or config.model.adapter)  # adapters have few moments
    if on_host and full and config.optim.offload == "none":
        with suppress(ValueError):
            optim = replace(config.optim, offload="host")
            yield said("the optimizer in the host's memory (optim.offload: host)", optim=optim)
    if full and config.optim.moments == "float32":
        with suppress(ValueError):  # not every optimizer has moments
            optim = replace(config.optim, moments="int8")
            yield said("moments in 8 bits (optim.moments: int8)", optim=optim)
    if full:
        with suppress(ValueError):
            # the reference is then the frozen base that the adapters stand on
            apart = config.model.reference_offload if config.model.reference else "none"
            model = replace(config.model, lora=LoraConfig(), reference_offload=apart)
            yield said("LoRA (model.lora: {})", model=model)
    if config.model.quant == "none":
        with suppress(ValueError):
            yield said("QLoRA (model.quant: nf4)", model=replace(config.model, quant="nf4"))


def _least_tokens(config: Config) -> int:
    """Places of a micro-batch that holds one example of the longest kind."""
    row = build.algorithm_of(config)
    k, response = row.format.k or LIST, config.data.max_response_len
    if row.experience:
        plan = build_online.plan_of(config)
        k, response = row.format.k or plan.responses, plan.response_len
    k += build.reads_mismatched(config)
    multiple = 128
    return -(-(config.data.max_prompt_len + k * response + 1) // multiple) * multiple
