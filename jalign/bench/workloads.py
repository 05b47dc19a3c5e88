"""The work that is measured: the step of a config, or random pairs on a random Llama."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jalign import algorithms
from jalign.core import Frozen, TrainState
from jalign.data.batch_spec import BatchSpec
from jalign.data.examples import Example, Examples, Report
from jalign.data.pipeline import Batches
from jalign.models import hub
from jalign.models.adapters.lora import add_lora, trainable_filter
from jalign.models.functional import functional
from jalign.optim.optimizer import make_optimizer
from jalign.options import RunOptions
from jalign.parallel.mesh import batch_shards, make_mesh
from jalign.plan import data as plan_data
from jalign.plan.architectures import config_of
from jalign.run import data as build_data
from jalign.run.batches import source_of, steps_of
from jalign.run.decoders import Source
from jalign.run.devices import cost_of, max_tokens_for, mesh_of
from jalign.run.policy import tokenizer_of
from jalign.run.roles import initial_state, load_roles
from jalign.train.objective import Objective
from jalign.train.source import Offline
from jalign.train.state import init_state, reference_copy
from jalign.train.step import make_train_step

# The tiny model that scripts for other libraries use too: 4 layers, width 256, untied head.
TINY_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 4096,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass
class Work:
    """A step ready to be run."""

    name: str
    step: Any  # (state, frozen, data) -> (state, metrics)
    state: TrainState
    frozen: Frozen
    source: Any  # Offline, or Online
    rows_per_step: float  # responses
    flops: float = 0.0  # of a step, what is computed twice counted once; 0: not counted


def random_pairs(lengths: np.ndarray, vocab_size: int, seed: int = 0) -> Examples:
    """Pairs of random tokens with the given [n, 3] lengths of prompt, chosen and rejected."""
    rng = np.random.default_rng(seed)

    def tokens(n: int) -> np.ndarray:
        return rng.integers(4, vocab_size, n).astype(np.int32)

    examples = []
    for p, c, r in lengths.tolist():
        responses = (tokens(c), tokens(r))
        scored = tuple(np.ones(len(x), bool) for x in responses)
        examples.append(Example(tokens(p), responses, scored, {}))
    return Examples.from_list(examples, Report(read=len(examples), kept=len(examples)))


def random_step(
    algorithm: str,
    lengths: np.ndarray,
    *,
    pairs: int,
    layout: str = "flat",
    reference: str = "step",
    lora: bool = False,
    group_by_length: int = 0,
    learning_rate: float = 1e-4,
    max_tokens: int | None = None,
) -> Work:
    """One algorithm's step on a random tiny Llama in float32 with AdamW."""
    row, mesh = algorithms.get(algorithm), make_mesh(fsdp=-1)
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    model = hub.init(TINY_LLAMA, key=jax.random.key(0), mesh=mesh, dtype=dtype)
    if lora:
        from flax import nnx

        model = add_lora(model, rank=8, alpha=16.0, targets=r"attn\.(q|v)", rngs=nnx.Rngs(0))
    apply, params, base = functional(model, trainable_filter(model))
    jax.set_mesh(mesh)
    examples = random_pairs(lengths, TINY_LLAMA["vocab_size"])
    spec = BatchSpec(
        batch_size=pairs,
        layout=layout,
        streams=batch_shards(mesh),
        max_tokens=max_tokens or max_tokens_for(examples),
        group_by_length=group_by_length,
        cost=cost_of(model.spec),
    )
    source = Offline(Batches(examples, spec), mesh)
    optimizer = make_optimizer("adamw", learning_rate)
    state = init_state(mesh, params, optimizer, row, seed=0)
    frozen = Frozen(base, reference_copy(params, dtype) if row.needs_reference() else None)
    if reference == "cached":
        source.columns = _zeros_for(row, len(examples))
        frozen = Frozen(base, None)
    step = jax.jit(make_train_step(row, apply, optimizer), donate_argnums=0)
    name = f"{algorithm} {layout} reference={reference}" + (" lora" if lora else "")
    return Work(name, step, state, frozen, source, 2 * pairs)


def _zeros_for(row: Any, n: int) -> dict[str, np.ndarray]:
    """Cached reference columns of the right shape; their values do not change the time."""
    names = [x for x in Objective.of(row).inputs if x.startswith("ref_")]
    return {x: np.zeros(n, np.float32) for x in names}


def config_step(options: RunOptions, *, random: bool = False) -> Work:
    """The step of a config, on its own data and model; or with `random` on random weights of its
    model's architecture and random tokens, every example as long as the options allows.
    """
    if options.algorithm.experience:
        raise ValueError("bench step measures steps on fixed data; this options samples its own")
    mesh = mesh_of(options.mesh)
    jax.set_mesh(mesh)
    if random:
        model = load_roles(options, Source(mesh, read=_random_weights), None)
        examples = _random_examples(options, model.decoder.spec)
    else:
        tokenizer = tokenizer_of(options)
        examples, _ = build_data.examples_of(options, tokenizer)
        model = load_roles(options, Source(mesh), tokenizer)
    spec = model.decoder.spec
    source = source_of(options, examples, mesh, spec)
    optimizer, _ = options.optim.make(steps_of(options, source.batches))
    state, frozen = initial_state(options, model, mesh, optimizer)
    row = options.algorithm
    if options.reference == "cached":
        source.columns, frozen = _zeros_for(row, len(examples)), Frozen(frozen.base, None)
    step = jax.jit(make_train_step(row, model.apply, optimizer), donate_argnums=0)
    rows = options.batch_size * (row.format.k or 1)
    # counted from the places of a batch, which are full where every example is the longest
    flops = plan_data.step_flops(options, spec, source.batches.batch(0))[0] if random else 0.0
    return Work(f"{row.name} on {model.path}", step, state, frozen, source, rows, flops)


def _random_weights(name: str, *, key: Any = None, **load_options: Any) -> Any:
    """As `hub.load`, of the same architecture."""
    return hub.init(config_of(name)[0], key=jax.random.key(0), **load_options)


def _random_examples(options: RunOptions, spec: Any) -> Examples:
    """Four steps of examples of the longest kind."""
    count, k = 4 * options.batch_size, plan_data.responses_of(options)
    examples = plan_data.longest_examples(options, spec, count, k)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, spec.vocab_size, len(examples.tokens), np.int32)
    made = examples.scored, examples.bounds, examples.first, examples.extras, examples.report
    return Examples(tokens, *made)
