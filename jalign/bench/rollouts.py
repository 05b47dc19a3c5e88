"""Benchmark sampling and full online steps on a random Llama."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jalign import algorithms
from jalign.bench.workloads import TINY_LLAMA, Work
from jalign.core import Frozen
from jalign.data.examples import Example, Examples
from jalign.models import hub
from jalign.models.adapters.lora import trainable_filter
from jalign.models.functional import functional
from jalign.optim.optimizer import make_optimizer
from jalign.parallel.mesh import make_mesh
from jalign.rewards.types import Judged
from jalign.rollout.groups import respond
from jalign.rollout.refill import respond_refilling
from jalign.rollout.sampler import Settings
from jalign.rollout.types import Rollout
from jalign.train.online import Online
from jalign.train.rollout_spec import RolloutSpec
from jalign.train.state import init_state
from jalign.train.step import make_train_step

# The shape of a 15M story model: 6 layers, width 288, tied head.
SMALL_LLAMA = TINY_LLAMA | {
    "hidden_size": 288,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "tie_word_embeddings": True,
}


def sampler(
    *, rows: int, prompt: int, new: int, vocabulary: int, mixed: bool, temperature: float
) -> dict[str, Callable[[], int]]:
    """Name -> a function that samples and returns the number of tokens.

    Responses have `new` tokens, or with `mixed` up to `new` tokens, 50 on average, from four times
    as many prompts as rows.
    """
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    config = SMALL_LLAMA | {"vocab_size": vocabulary}
    split = nnx.split(hub.init(config, key=jax.random.key(0), dtype=dtype))
    # a random model's tokens are about equally likely: 1 in 50 of the vocabulary ends a response
    eos = tuple(range(vocabulary // 50)) if mixed else ()
    settings = Settings(max_new_tokens=new, temperature=temperature, eos=eos)
    # refilling gains only where prompts wait for a free row
    count = 4 * rows if mixed else rows
    prompts = list(np.random.default_rng(0).integers(4, vocabulary, (count, prompt), np.int32))
    key = jax.random.key(1)

    def tokens(rollout: Rollout) -> int:
        return int(rollout.lengths.sum())

    def together() -> int:
        return tokens(respond(split, prompts, settings, key, batch_size=rows))

    def refilled() -> int:
        return tokens(respond_refilling(split, prompts, settings, key, rows=rows))

    return {"together": together} | ({"refilled": refilled} if mixed else {})


def in_turns(calls: dict[str, Callable[[], int]], repeats: int) -> dict[str, float]:
    """Median tokens per second of each function, called alternately after one warm-up call."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    # this call compiles
    tokens = {name: call() for name, call in calls.items()}
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    return {f"{name}_tokens_per_second": round(tokens[name] / median[name], 1) for name in calls}


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
    rng = np.random.default_rng(0)
    ids = rng.integers(4, TINY_LLAMA["vocab_size"], (16 * prompts, prompt), np.int32)
    examples = Examples.from_list(Example(x, (), (), {}) for x in ids)
    settings = Settings(max_new_tokens=new, responses=responses)
    graphdef = nnx.graphdef(model)

    def sample(state, frozen, indices, key) -> Rollout:
        policy = graphdef, nnx.merge_state(state.params, frozen.base)
        return respond(policy, [ids[i] for i in indices], settings, key, batch_size=prompts)

    def reward(indices, rollout: Rollout) -> Judged:
        # a reward that costs next to nothing and differs within a group
        even = [float((tokens % 2 == 0).mean()) for tokens in rollout.responses()]
        return Judged(np.array(even, np.float32).reshape(prompts, responses), None, {})

    spec = RolloutSpec(
        batch_size=prompts, prompts=prompts, responses=responses, response_len=new, max_tokens=2048
    )
    row = row.with_hyper(**hyper)
    source = Online(row, examples, sample, reward, apply, spec, mesh, seed=0)
    optimizer = make_optimizer("adamw", 1e-4)
    state = init_state(mesh, params, optimizer, row, seed=0, **hyper)
    step = jax.jit(make_train_step(row, apply, optimizer, **hyper), donate_argnums=0)
    name = f"{algorithm} {prompts} x {responses}, {prompt} + {new} tokens"
    return Work(name, step, state, Frozen(base, None), source, mesh, prompts * responses)
