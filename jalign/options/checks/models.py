"""Checks of the models of a run: adapters, reference, critic and heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jalign.core import TWO_MODELS

if TYPE_CHECKING:
    from jalign.options.run import RunOptions


def check_models(options: RunOptions) -> Iterator[str]:
    """Every model that the algorithm needs is set, and no other."""
    row, model = options.algorithm, options.model
    yield from _check_adapters(options)
    if options.reference == "cached" and not row.needs_reference():
        yield f"reference: cached does not apply: {row.name} reads no reference"
    if options.reference == "cached" and (why := _why_not_cached(options)):
        yield f"reference: cached does not apply to {row.name}: {why}"
    yield from _check_reference(options)
    yield from _check_merging(options)
    if model.critic and not row.needs_critic:
        yield f"model.critic does not apply: {row.name} trains no critic"
    if model.reference_offload == "host" and (why := _why_not_offloaded(options)):
        yield f"model.reference_offload does not apply: {why}"
    for name in ("router_balance", "router_z"):
        if (weight := getattr(model, name)) < 0:
            yield f"model.{name} must be at least 0, got {weight}"
    several = "attribute_scores" in row.inputs()
    if model.heads < 1 or (model.heads != 1 and not several):
        why = "it must be at least 1" if model.heads < 1 else f"{row.name} reads one number"
        yield f"model.heads is {model.heads}: {why}"


def _check_adapters(options: RunOptions) -> Iterator[str]:
    row, model = options.algorithm, options.model
    adapters = model.lora or model.adapter
    if model.quant != "none" and not adapters:
        yield (
            f"model.quant: {model.quant} freezes the matrices, and nothing else would be trained: "
            "set model.lora or model.adapter"
        )
    # each forward pass would draw another mask, and the log-ratio would be noise around 0
    dropout = bool(model.lora and model.lora.dropout)
    if dropout and row.needs_reference():
        yield (
            f"model.lora.dropout does not apply to {row.name}: policy and reference would differ "
            "where they are the same; set it to 0"
        )
    if dropout and row.experience and "old_token_logps" in row.inputs():
        yield (
            f"model.lora.dropout does not apply to {row.name}: the policy would differ from what "
            "was sampled where it is the same; set it to 0"
        )
    # (a1 + a2)/2 times (b1 + b2)/2 is not (a1 b1 + a2 b2)/2
    moving = {"ref_mixup_alpha": row.moves_reference(), "last_mixup_alpha": row.has_last()}
    for name, moves in moving.items():
        if adapters and moves and row.hyperparameters.get(name, 1) < 1:
            yield (
                f"{name} < 1 does not apply to adapters: the mean of two adapters' factors is "
                "not the mean of the weights; set it to 1"
            )


def _check_reference(options: RunOptions) -> Iterator[str]:
    row, model = options.algorithm, options.model
    if row.needs_teacher and not model.reference:
        yield f"{row.name} learns from a teacher: set model.reference"
    if model.reference and not row.needs_reference():
        yield f"model.reference does not apply: {row.name} reads no reference"
    if model.reference and row.moves_reference():
        yield (
            "model.reference does not apply: with ref_sync_steps the reference is the model of "
            "earlier steps"
        )
    if row.hyper.get("ref_mixup_alpha", 1.0) != 1.0 and not row.moves_reference():
        yield "ref_mixup_alpha does nothing if the reference does not move: set ref_sync_steps"
    if row.moves_reference() and not row.needs_reference():
        yield (
            f"ref_sync_steps does not apply: with these hyper-parameters {row.name} reads no "
            "reference"
        )


def _check_merging(options: RunOptions) -> Iterator[str]:
    row, model, merging = options.algorithm, options.model, options.optim.merging
    if merging is None:
        return
    if not merging.base:
        yield "optim.merging.base must be set: the model before it was fine-tuned to model.path"
    if merging.base == model.path:
        yield (
            "optim.merging does not apply: its base is model.path itself, which fine-tuning has "
            "not changed"
        )
    if model.lora or model.adapter:
        yield (
            "optim.merging does not apply to adapters: the base before fine-tuning has none; "
            "leave out model.lora and model.adapter"
        )
    # the base has no such head, and what fine-tuning changed would not be known of it
    if row.needs_value_head or row.needs_critic:
        yield f"optim.merging does not apply to {row.name}: its scalar head is not in the base"


def _why_not_cached(options: RunOptions) -> str | None:
    """Reference log-probs are cached only if a later computation would give the same."""
    row = options.algorithm
    inputs = row.inputs()
    if row.experience:
        return "its responses are sampled anew"
    if row.moves_reference():
        return "its reference moves (ref_sync_steps)"
    if row.has_last():
        return "it reads a second reference, which moves"
    if "kl_present" in inputs:
        return "which mismatched response an example gets changes with its batch"
    # a cache of them would hold the whole vocabulary for every token
    if any(output in TWO_MODELS for output in row.outputs(inputs)):
        return "it compares policy and reference over the whole vocabulary"
    if any(name.removeprefix("ref_") in row.format.token_fields for name in inputs):
        return "it reads the reference token by token"
    return None


def _why_not_offloaded(options: RunOptions) -> str | None:
    """An offloaded reference is fixed, has weights of its own, and is only scored with."""
    row, model = options.algorithm, options.model
    if not row.needs_reference():
        return f"{row.name} reads no reference"
    if options.reference == "cached":
        return "reference: cached keeps none"
    if row.moves_reference():
        return "with ref_sync_steps it is part of what is trained"
    if (model.lora or model.adapter) and not model.reference:
        return "policy and reference share the same frozen weights"
    if row.experience and row.experience.samples_reference:
        return f"{row.name} samples from it"
    return None
