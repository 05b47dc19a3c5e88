"""Check that every tokenized row fits every model that reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jalign.data.examples import Examples
from jalign.models import hub
from jalign.models.adapters.peft_tables import vocabulary_of
from jalign.models.limits import check_length, check_token
from jalign.models.spec import Spec
from jalign.options import RunOptions
from jalign.run.batches import reads_mismatched
from jalign.run.policy import OWN, model_path
from jalign.run.roles import SHARED_CRITIC
from jalign.run.samples import sample_prompts

if TYPE_CHECKING:
    from jalign.models.limits import NamesTokens

SHORTER = "set data.max_prompt_len and data.max_response_len lower"
SAMPLES = "set data.max_prompt_len and rollout.max_new_tokens lower"
SHOWN = "set data.max_prompt_len and sample.max_new_tokens lower"


def check(
    options: RunOptions,
    tokenizer: NamesTokens,
    examples: Examples | None,
    held: Examples | None = None,
) -> list[str]:
    """Check that all examples of a run fit all models that read them, without loading weights.

    Returns:
      Warnings about rows beyond the trained context of a model with rotary positions.

    Raises:
      ValueError: a token without an embedding, or a row longer than learned positions; the message
        names row, token, model and both sizes.
    """
    online = options.algorithm.experience is not None
    sampled = options.rollout.max_new_tokens if online else 0
    warnings = check_part(options, tokenizer, examples, "the training data", sampled)
    warnings += check_part(options, tokenizer, held, "the held-out data", sampled)
    if held is not None and (shown := sample_prompts(options, held)):
        lengths = np.array([len(prompt) + options.sample.max_new_tokens for _, prompt in shown])
        example_indices = [i for i, _ in shown]
        # the first is the policy: samples are read by no other model
        policy = dict(list(specs_of(options).items())[:1])
        warnings += _check_longest(
            held, lengths, policy, "the held-out data", SHOWN, example_indices
        )
    return warnings


def check_experts(options: RunOptions) -> None:
    """Options of mixtures need a model with experts.

    Raises:
      ValueError: the policy has none; the message names the option.
    """
    given = {
        "model.router_balance": options.model.router_balance,
        "model.router_z": options.model.router_z,
        "rollout.replay_router": options.rollout.replay_router,
    }
    names = [name for name, value in given.items() if value]
    if not names:
        return
    spec = specs_of(options).get(options.model.path)
    if spec is None or spec.experts is None:
        raise ValueError(
            f"{', '.join(names)}: {options.model.path} has no experts, and so no router; leave "
            "the option out"
        )


def check_expert_axis(spec: Spec, devices: int, model: str) -> None:
    """The axis `mesh.expert`, of so many devices, needs experts that it divides.

    Raises:
      ValueError: it does not; the message names the model and what to set.
    """
    if devices == 1:
        return
    if spec.experts is None:
        raise ValueError(
            f"mesh.expert={devices}: {model} has no experts; set mesh.expert: 1 and mesh.fsdp "
            f"{devices} times as large, which splits a dense model in the same way"
        )
    if spec.experts.count % devices:
        raise ValueError(
            f"mesh.expert={devices} does not divide the {spec.experts.count} experts of {model}"
        )


def check_part(
    options: RunOptions,
    tokenizer: NamesTokens,
    examples: Examples | None,
    what: str,
    sampled: int = 0,
) -> list[str]:
    """As `check`, for examples called `what`, followed by up to `sampled` tokens."""
    if examples is None or not len(examples):
        return []
    specs = specs_of(options)
    check_ids(examples, tokenizer, specs, what)
    lengths = _lengths(options, examples, sampled)
    return _check_longest(examples, lengths, specs, what, SAMPLES if sampled else SHORTER)


def specs_of(options: RunOptions) -> dict[str, Spec]:
    """Specs of every model that reads the tokens of the run, by name for messages."""
    c = options.model
    others = {"model.reference": c.reference, "model.critic": c.critic}
    named = {c.path: c.path} | {
        f"{key} ({path})": path for key, path in others.items() if path and path != SHARED_CRITIC
    }
    named = {name: path for name, path in named.items() if path != OWN}  # it has no config
    specs = {name: hub.spec_of(model_path(path)) for name, path in named.items()}
    # an adapter may bring an embedding of its own, with added tokens
    resized = vocabulary_of(c.adapter) if c.adapter else None
    if resized:
        specs[c.path] = dataclasses.replace(specs[c.path], vocab_size=resized)
    return specs


def check_ids(
    examples: Examples, tokenizer: NamesTokens, specs: Mapping[str, Spec], what: str
) -> None:
    """Check that every token has an embedding in every model."""
    if not examples.tokens.size:
        return
    # tables have no holes: where the extremes have an embedding, all ids between them have
    for token in {int(examples.tokens.max()), int(examples.tokens.min())}:
        for model, spec in specs.items():
            if 0 <= token < spec.vocab_size:
                continue
            place = int(np.argmax(examples.tokens == token))
            segment = int(np.searchsorted(examples.bounds, place, side="right")) - 1
            example = int(np.searchsorted(examples.first, segment, side="right")) - 1
            text = tokenizer.convert_ids_to_tokens(token) if token >= 0 else None
            where = _where(examples, example, what)
            check_token(token, spec, text=text, where=where, model=model)


def _lengths(options: RunOptions, examples: Examples, sampled: int) -> np.ndarray:
    """[n] tokens of the longest row of each example; `sampled` tokens may follow the prompt."""
    prompt, response, _ = examples.lengths
    longest = response.max(axis=1, initial=0)
    if reads_mismatched(options):  # another example's response follows the prompt, too
        longest = np.full_like(longest, longest.max(initial=0))
    return prompt + np.maximum(longest, sampled)


def _check_longest(
    examples: Examples,
    lengths: np.ndarray,
    specs: Mapping[str, Spec],
    what: str,
    remedy: str,
    example_indices: Sequence[int] | None = None,
) -> list[str]:
    """Check the longest row against every model; `example_indices` are the examples of the rows."""
    # one row is enough: the error names the worst, a warning counts for all
    longest = int(np.argmax(lengths))
    example = longest if example_indices is None else example_indices[longest]
    where = _where(examples, example, what)
    warnings = (
        check_length(int(lengths[longest]), spec, where=where, model=model, remedy=remedy)
        for model, spec in specs.items()
    )
    return [warning for warning in warnings if warning]


def _where(examples: Examples, i: int, what: str) -> str:
    """Where an example comes from: its file and row if known."""
    row = int(examples.extras["row"][i]) if "row" in examples.extras else i
    place = examples.report.locations[row]
    return f"{place} of {what}" if place == f"row {row}" else f"{place}, in {what},"
