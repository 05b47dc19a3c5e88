"""Whole online steps: of the random tiny Llama, or of a config on random weights and prompts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jalign import algorithms
from jalign.bench.rollouts import sampling_flops
from jalign.bench.workloads import TINY_LLAMA, Work, random_weights
from jalign.core import Frozen, TrainState
from jalign.data.examples import Example, Examples
from jalign.kernels.compiler_options import compiler_options
from jalign.models import hub
from jalign.models.adapters.lora import trainable_filter
from jalign.models.functional import functional
from jalign.optim.optimizer import make_optimizer
from jalign.options import RunOptions
from jalign.parallel.mesh import make_mesh
from jalign.plan import data as plan_data
from jalign.rewards.types import Judged
from jalign.rollout.groups import respond
from jalign.rollout.sampler import Settings
from jalign.rollout.types import Rollout
from jalign.run import rollouts as build_online
from jalign.run.decoders import Source as ModelSource
from jalign.run.devices import mesh_of
from jalign.run.roles import initial_state, load_roles
from jalign.train.online import Online
from jalign.train.protocols import JudgeRollout, Sampler
from jalign.train.rollout_spec import RolloutSpec
from jalign.train.state import init_state
from jalign.train.step import make_train_step

Weights = tuple[nnx.GraphDef[Any], nnx.State]


def online_step(algorithm: str, *, prompts: int, responses: int, prompt: int, new: int) -> Work:
    """A step of an online algorithm without reference on the random tiny Llama: sampling, a Python
    reward (the share of even tokens), training.
    """
    row, mesh = algorithms.get(algorithm), make_mesh(fsdp=-1)
    zero = ("kl_k3_coef", "kl_k2_coef", "kl_coef")
    # without a KL term no reference is needed: one model is measured
    hyper: dict[str, Any] = {n: 0.0 for n in zero if n in row.hyperparameters}
    if row.needs_reference(**hyper) or row.needs_critic:
        raise ValueError(f"bench rl measures algorithms of one model; {algorithm} reads more")
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    model = hub.init(TINY_LLAMA, key=jax.random.key(0), mesh=mesh, dtype=dtype)
    apply, params, base = functional(model, trainable_filter(model))
    examples = _prompts(16 * prompts, prompt, TINY_LLAMA["vocab_size"])
    settings = Settings(max_new_tokens=new, responses=responses)
    graphdef = nnx.graphdef(model)
    policy = lambda state, frozen: (graphdef, nnx.merge_state(state.params, frozen.base))  # noqa: E731
    spec = RolloutSpec(
        batch_size=prompts, prompts=prompts, responses=responses, response_len=new, max_tokens=2048
    )
    row = row.with_hyper(**hyper)
    sample = _sampler(policy, examples, settings, prompts)
    source = Online(row, examples, sample, _reward(responses), apply, spec, mesh, seed=0)
    optimizer = make_optimizer("adamw", 1e-4)
    state = init_state(mesh, params, optimizer, row, seed=0, **hyper)
    step = jax.jit(make_train_step(row, apply, optimizer, **hyper), donate_argnums=0)
    name = f"{algorithm} {prompts} x {responses}, {prompt} + {new} tokens"
    return Work(name, step, state, Frozen(base, None), source, mesh, prompts * responses)


def config_online_step(options: RunOptions) -> Work:
    """A step of an online config: random weights of its architecture, random prompts of the maximum
    length, responses that all reach `rollout.max_new_tokens`, and a Python reward.

    `flops` are those of sampling and of the train step; log-probs that are read again between them
    are not counted.

    Raises:
      ValueError: the opponent is not the policy, or the algorithm compares with greedy responses.
    """
    row, c = options.algorithm, options.rollout
    assert row.experience is not None
    if row.experience.opponent != "policy" or "greedy_scores" in row.rollout_inputs():
        raise ValueError(f"a benchmark samples from the policy alone; {row.name} reads more")
    mesh = mesh_of(options.mesh)
    model = load_roles(options, ModelSource(mesh, read=random_weights), None)
    decoder, rollout_spec = model.decoder, build_online.spec_of(options)
    prompt, _ = plan_data.longest(options, decoder.spec)
    prompts = rollout_spec.prompts
    examples = _prompts(4 * prompts, prompt, decoder.spec.vocab_size)
    policy = build_online.policy_fn(options, model)
    sample = _sampler(
        lambda state, _: policy(state.params),
        examples,
        build_online.settings_of(options, eos=()),
        build_online.prompts_per_call(options),
    )
    xla_options = compiler_options(decoder.dtype)
    source = Online(
        row, examples, sample, _reward(rollout_spec.responses), model.apply, rollout_spec, mesh,
        seed=options.seed, compiler_options=xla_options,
    )  # fmt: skip
    optimizer = options.any_optimizer()
    state, frozen = initial_state(options, model, mesh, optimizer)
    step = jax.jit(
        make_train_step(row, model.apply, optimizer), donate_argnums=0, compiler_options=xla_options
    )
    with jax.set_mesh(mesh):
        data = plan_data.online_data(options, mesh, decoder.spec)
        flops = plan_data.step_flops(options, decoder.spec, data)[0]
    sampled = sampling_flops(
        decoder.spec, prompts, rollout_spec.responses, prompt, c.max_new_tokens
    )
    rows = options.batch_size * rollout_spec.responses
    name = f"{row.name} on {model.path}"
    # a rollout feeds `rollout_spec.steps` steps
    flops += sampled / rollout_spec.steps
    return Work(name, step, state, frozen, source, mesh, rows, flops)


def _prompts(count: int, length: int, vocabulary: int) -> Examples:
    """Prompts of random tokens; ids below 4 are special tokens."""
    ids = np.random.default_rng(0).integers(4, vocabulary, (count, length), np.int32)
    return Examples.from_list(Example(x, (), (), {}) for x in ids)


def _sampler(
    policy: Callable[[TrainState, Frozen], Weights],
    examples: Examples,
    settings: Settings,
    batch_size: int,
) -> Sampler:
    def sample(state: TrainState, frozen: Frozen, indices: Any, key: jax.Array) -> Rollout:
        prompts = [examples[i].prompt for i in indices]
        return respond(policy(state, frozen), prompts, settings, key, batch_size=batch_size)

    return sample


def _reward(responses: int) -> JudgeRollout:
    """The share of even tokens: it costs next to nothing and differs within a group."""

    def reward(indices: Any, rollout: Rollout) -> Judged:
        even = [float((tokens % 2 == 0).mean()) for tokens in rollout.responses()]
        return Judged(np.array(even, np.float32).reshape(-1, responses), None, {})

    return reward
