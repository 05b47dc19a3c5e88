"""Benchmark sampling on random weights."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jalign.bench.workloads import TINY_LLAMA
from jalign.kernels.devices import known
from jalign.models import hub
from jalign.models.families import family_of
from jalign.models.spec import Spec
from jalign.plan import work
from jalign.plan.architectures import config_of
from jalign.rollout.groups import respond
from jalign.rollout.refill import respond_refilling
from jalign.rollout.sampler import Settings
from jalign.rollout.types import Rollout
from jalign.run.policy import model_path

# The shape of a 15M story model: 6 layers, width 288, tied head.
SMALL_LLAMA = TINY_LLAMA | {
    "hidden_size": 288,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "tie_word_embeddings": True,
}


def sampled_config(model: str | None, vocabulary: int) -> dict[str, object]:
    """The config.json of a named architecture, or of the small Llama with this vocabulary."""
    return config_of(model_path(model))[0] if model else SMALL_LLAMA | {"vocab_size": vocabulary}


def compute_dtype() -> np.dtype:
    """What a run would compute in: bfloat16 products are slow on a CPU."""
    return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)


def sampler(
    config: dict[str, object],
    *,
    rows: int,
    prompt: int,
    new: int,
    mixed: bool,
    temperature: float,
) -> dict[str, Callable[[], int]]:
    """Name -> a function that samples and returns the number of tokens.

    Responses have `new` tokens, or with `mixed` up to `new` tokens, 50 on average, from four times
    as many prompts as rows.
    """
    dtype, vocabulary = compute_dtype(), family_of(config).spec(config).vocab_size
    # weights are stored as they are computed with: masters in float32 would be read at every token
    model = hub.init(config, key=jax.random.key(0), dtype=dtype, param_dtype=dtype)
    split = nnx.split(model)
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


def sampling_flops(spec: Spec, prompts: int, responses: int, prompt: int, new: int) -> float:
    """FLOPs of sampling: each prompt once, and the new tokens of `responses` responses to each."""
    n = prompts * responses
    rows = work.Rows(n * (prompt + new), n, prompt + new, n * new)
    once = work.Rows(prompts * prompt, prompts, prompt, 0)
    shared = work.Rows(n * prompt, n, prompt, 0)
    full, first, repeated = (work.forward(spec, [s]).total for s in (rows, once, shared))
    return full + first - repeated


def decode_utilization(
    config: dict[str, object], rows: int, prompt: int, new: int, tokens_per_second: float
) -> dict[str, float]:
    """Model FLOPs utilization (MFU), and the share of the memory's bandwidth that the reads of
    weights and KV cache take at least; {} if the device is not known.
    """
    device, spec = known(jax.devices()[0].device_kind), family_of(config).spec(config)
    if device is None:
        return {}
    seconds = rows * new / tokens_per_second
    read = work.decode_bytes(spec, rows, prompt, new, compute_dtype().itemsize)
    flops = sampling_flops(spec, rows, 1, prompt, new)
    return {
        "mfu": round(flops / seconds / device.flops, 4),
        "bandwidth_share": round(read / seconds / device.bandwidth, 4),
    }
