"""The sampler, the held-out evaluation and the source of an online run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from jalign.core import Frozen, TrainState
from jalign.data.examples import Example
from jalign.kernels.compiler_options import compiler_options
from jalign.models.decoder import Decoder
from jalign.models.experts.exchange import with_whole_kernels
from jalign.models.functional import StandaloneModel, policy_of
from jalign.options import RunOptions
from jalign.rollout.groups import greedy, respond
from jalign.rollout.refill import respond_refilling
from jalign.rollout.sampler import Settings
from jalign.rollout.stops import stop_at
from jalign.rollout.types import Rollout
from jalign.run import data as build_data
from jalign.run import limits as check_tokens
from jalign.run.devices import usual_multiple, usual_tokens
from jalign.run.policy import eos_ids
from jalign.run.prompts import PromptTable
from jalign.run.rewards import RewardFn
from jalign.run.roles import Roles
from jalign.run.rollout_record import recorder_of
from jalign.run.teacher import teacher_of
from jalign.train.micro_batches import MicroBatchPacker
from jalign.train.online import Online
from jalign.train.online_metrics import diversity_metrics, length_metrics
from jalign.train.pretraining import Pretraining
from jalign.train.protocols import Sampler
from jalign.train.rollout_spec import RolloutSpec
from jalign.train.scoring import ResponseScorer
from jalign.train.state import gathered_copy_fn

LOG = logging.getLogger(__name__)

Weights = tuple[nnx.GraphDef[Decoder], nnx.State]
"""(graphdef, state) of a policy, for the sampler."""


def spec_of(options: RunOptions) -> RolloutSpec:
    """The sizes and rules of a run's rollouts."""
    c, row = options.rollout, options.algorithm
    assert row.experience is not None
    _, sync_steps, mixup_alpha = row.iteration
    # responses or texts of the data are packed with the samples, and may be longer
    from_data = row.experience.opponent == "data" or options.data.pretraining is not None
    return RolloutSpec(
        **c.rules(),
        batch_size=options.batch_size,
        prompts=prompts_per_rollout(options),
        responses=c.responses or row.experience.responses,
        response_len=max(c.max_new_tokens, options.data.max_response_len * from_data),
        max_tokens=options.data.max_tokens or usual_tokens(),
        multiple=usual_multiple(),
        max_new_tokens=c.max_new_tokens,
        ref_sync_steps=sync_steps,
        ref_mixup_alpha=mixup_alpha,
        run_steps=options.steps,
    )


def prompts_per_rollout(options: RunOptions) -> int:
    """Prompts of one step, or of one iteration if the algorithm is iterative."""
    row = options.algorithm
    assert row.experience is not None
    steps = 1
    if row.experience.iterative:
        steps = max(1, -(-row.iteration[1] // options.rollout.epochs))
    return options.rollout.prompts or steps * options.batch_size


def settings_of(options: RunOptions, eos: tuple[int, ...]) -> Settings:
    """Sampling settings of a run; `eos` are the token ids that end a response."""
    c = options.rollout
    return Settings(
        max_new_tokens=c.max_new_tokens,
        temperature=c.temperature,
        top_k=c.top_k or None,
        top_p=c.top_p,
        eos=eos,
        responses=spec_of(options).responses,
        record_experts=c.replay_router,
    )


def prompts_per_call(options: RunOptions) -> int:
    """Number of prompts per call of the sampler."""
    return options.rollout.sample_batch or options.rollout.prompts or options.batch_size


def policy_fn(options: RunOptions, model: Roles) -> Callable[[PyTree], Weights]:
    """`(params) -> policy` for the sampler, with weights sharded or gathered (rollout.weights)."""
    copies: list[Callable[[nnx.State], nnx.State]] = []

    def policy(params: PyTree) -> Weights:
        graphdef, state = model.sampling_weights(params)
        # which saves a copy, but gathers the weights at every token
        if options.rollout.weights == "sharded":
            return graphdef, state
        if not copies:  # compiled once, with the shardings of the first weights
            copies.append(gathered_copy_fn(state, model.decoder.dtype)[0])
        state = copies[0](state)
        return with_whole_kernels(graphdef, state), state

    return policy


def sampler_of(options: RunOptions, model: Roles, table: PromptTable) -> Sampler:
    """The sampler of a run; the opponent, if any, writes the last responses to each prompt."""
    row, c = options.algorithm, options.rollout
    assert row.experience is not None
    opponent, policy = row.experience.opponent, policy_fn(options, model)
    settings = settings_of(options, eos_ids(model.path, model.tokenizer))
    size, single = prompts_per_call(options), replace(settings, responses=1)
    if opponent != "policy":
        of_policy = row.experience.by_policy(settings.responses)
        single = replace(settings, responses=settings.responses - of_policy)
        settings = replace(settings, responses=of_policy)

    def sample(
        state: TrainState, frozen: Frozen, indices: Sequence[int], key: jax.Array
    ) -> Rollout:
        prompts = [table[i].ids for i in indices]
        weights = policy(state.params)
        if c.rows:
            rollout = respond_refilling(weights, prompts, settings, key, rows=c.rows)
        else:
            rollout = respond(weights, prompts, settings, key, batch_size=size)
        if opponent == "policy":
            return rollout
        if opponent == "data":
            return rollout.beside(data_responses([table.examples[i] for i in indices], single.eos))
        # its own key: with the same one, equal weights would give equal responses
        other_key = jax.random.fold_in(key, 1 << 20)  # batches fold in smaller numbers
        other = opponent_weights(options, model, frozen)
        if opponent != "mixture":
            return rollout.beside(respond(other, prompts, single, other_key, batch_size=size))
        mixed = replace(single, mixture=c.mixture)
        return rollout.beside(
            respond(weights, prompts, mixed, other_key, batch_size=size, other=other)
        )

    def sampler(
        state: TrainState, frozen: Frozen, indices: Sequence[int], key: jax.Array
    ) -> Rollout:
        return stop_at(sample(state, frozen, indices, key), model.tokenizer, c.stop)

    return sampler if c.stop else sample


def greedy_sampler_of(options: RunOptions, model: Roles, table: PromptTable) -> Sampler:
    """A sampler that decodes one response per prompt greedily."""
    settings = greedy(settings_of(options, eos_ids(model.path, model.tokenizer)))
    policy, size = policy_fn(options, model), prompts_per_call(options)

    def sampler(
        state: TrainState, frozen: Frozen, indices: Sequence[int], key: jax.Array
    ) -> Rollout:
        del frozen
        prompts = [table[i].ids for i in indices]
        rollout = respond(policy(state.params), prompts, settings, key, batch_size=size)
        return stop_at(rollout, model.tokenizer, options.rollout.stop)

    return sampler


def data_responses(examples: Sequence[Example], eos: Sequence[int]) -> Rollout:
    """The responses of the data as a rollout; a truncated one has no EOS."""
    return Rollout.from_lists(
        [example.prompt for example in examples],
        [[example.responses[0]] for example in examples],
        finished=[[example.responses[0][-1] in eos] for example in examples],
    )


def opponent_weights(options: RunOptions, model: Roles, frozen: Frozen) -> Weights:
    """(graphdef, state) of the model that writes an opponent's responses."""
    assert options.algorithm.experience is not None
    # the moving copy is of the trained weights alone, a reference may be another model
    if options.algorithm.experience.opponent == "last":
        return model.sampling_weights(frozen.last)
    return reference_weights(model, frozen)


def reference_weights(model: Roles, frozen: Frozen) -> Weights:
    """(graphdef, state) of the reference, for the sampler."""
    if isinstance(frozen.ref, StandaloneModel):
        return frozen.ref.graphdef, frozen.ref.state
    return model.sampling_weights(policy_of(frozen.ref))


def trained_temperature(options: RunOptions) -> float:
    """Temperature of the log-probs that a loss reads: the sampling temperature for policy
    gradients, 1 for losses on fixed data, preferences or best responses.
    """
    return options.rollout.temperature if options.algorithm.policy_gradient else 1.0


def source_of(
    options: RunOptions,
    model: Roles,
    table: PromptTable,
    mesh: Mesh,
    reward: RewardFn,
    *,
    sampler: Sampler | None = None,
) -> Online:
    """The source of an online run on these prompts; `sampler` replaces the default one."""
    spec = spec_of(options)
    return Online(
        options.algorithm,
        table.examples,
        sampler or sampler_of(options, model, table),
        partial(reward, table),
        model.apply,
        spec,
        mesh,
        seed=options.seed,
        greedy=greedy_sampler_of(options, model, table),
        on_rollout=recorder_of(options, table) if options.rollout.record else None,
        pretraining=pretraining_of(options, model),
        teacher=teacher_of(options, model, table, mesh, spec),
        compiler_options=compiler_options(model.decoder.dtype),
    )


def pretraining_of(options: RunOptions, model: Roles) -> Pretraining | None:
    """The texts of `data.pretraining`, one per prompt and step."""
    if options.data.pretraining is None:
        return None
    texts = build_data.pretraining_of(options, model.tokenizer)
    for warning in check_tokens.check_part(options, model.tokenizer, texts, "data.pretraining"):
        LOG.warning("%s", warning)
    return Pretraining(texts, options.batch_size, options.seed)


Evaluator = Callable[[TrainState, Frozen], dict[str, float] | None]
"""`(state, frozen) -> metrics`; None if it was stopped."""


def evaluator_of(
    options: RunOptions,
    model: Roles,
    table: PromptTable,
    mesh: Mesh,
    reward: RewardFn,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluator:
    """Metrics of one response to every held-out prompt: reward, lengths, diversity, and with a
    reference the KL divergence to it (k1, nats per response).

    Args:
      stop: called between model calls; if it returns True, the evaluator returns None.
    """
    spec, policy = spec_of(options), policy_fn(options, model)
    eos = eos_ids(model.path, model.tokenizer)
    # sampled, not greedy: the KL and the diversity are those of the policy
    settings = replace(settings_of(options, eos), responses=1)
    # as many rows at once as a rollout has
    size = min(prompts_per_call(options) * spec.responses, len(table))
    indices, prompts = range(len(table)), [example.prompt for example in table.examples]
    # one key for all evaluations: they differ by the weights, not by the draw
    key = jax.random.fold_in(jax.random.key(options.seed), 4)
    longest = int(table.examples.lengths.prompt_len.max())
    packer = MicroBatchPacker(mesh, longest, spec.response_len, spec.max_tokens, spec.multiple)
    xla_options = compiler_options(model.decoder.dtype)
    scorer = ResponseScorer(model.apply, spec.temperature, packer, xla_options)
    names = ("old_token_logps", "ref_token_logps")

    def evaluate(state: TrainState, frozen: Frozen) -> dict[str, float] | None:
        weights = policy(state.params)
        rollout = respond(weights, prompts, settings, key, batch_size=size, stop=stop)
        # a preemption gives seconds: it must be heard within an evaluation, not after it
        if stop():
            return None
        rollout = stop_at(rollout, model.tokenizer, options.rollout.stop)
        metrics = length_metrics(rollout.lengths, rollout.finished) | diversity_metrics(rollout)
        if options.reward.given:
            judged = reward(table, indices, rollout)
            metrics |= judged.metrics
            if judged.scores is not None and np.isfinite(judged.scores).any():
                metrics["reward"] = float(judged.scores[np.isfinite(judged.scores)].mean())
        if stop():
            return None
        # scored by the trainer's program: the sampler's log-probs round differently
        if frozen.ref is not None:
            logps = scorer(rollout, names, state.params, frozen)
            k1 = logps["old_token_logps"] - logps["ref_token_logps"]
            metrics["objective/kl"] = float(k1.sum(-1).mean())
        return {name: x for name, x in metrics.items() if np.isfinite(x)}

    return evaluate
