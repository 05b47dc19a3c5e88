"""Workloads of benchmarks: the step of a config, or of random tokens on a random Llama."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from jalign import algorithms
from jalign.core import Algorithm, Frozen, TrainState
from jalign.data.batch_spec import BatchSpec
from jalign.data.examples import Example, Examples, Report
from jalign.data.pipeline import Batches
from jalign.models import hub
from jalign.models.adapters.lora import add_lora, trainable_filter
from jalign.models.functional import functional
from jalign.models.quant import quantize_in_place
from jalign.optim.optimizer import make_optimizer
from jalign.options import RunOptions
from jalign.parallel.mesh import batch_shards, make_mesh
from jalign.parallel.rules import place
from jalign.plan import data as plan_data
from jalign.plan.architectures import config_of
from jalign.run import data as build_data
from jalign.run.batches import source_of, steps_of
from jalign.run.decoders import Source as ModelSource
from jalign.run.devices import cost_of, max_tokens_for, mesh_of
from jalign.run.policy import tokenizer_of
from jalign.run.roles import initial_state, load_roles
from jalign.train.objective import Objective
from jalign.train.source import Offline, Source
from jalign.train.state import init_state, reference_copy
from jalign.train.step import make_train_step

# The tiny model that the scripts for other libraries use, too: 4 layers, width 256, untied head.
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
    """A jitted step with its state and data.

    Attributes:
      step: (state, frozen, data) -> (state, metrics), donating the state.
      mesh: in scope whenever the step runs or is traced.
      rows_per_step: responses per step.
      flops: FLOPs of one step without recomputation; 0 if unknown.
    """

    name: str
    step: jax.stages.Wrapped
    state: TrainState
    frozen: Frozen
    source: Source
    mesh: Mesh
    rows_per_step: float
    flops: float = 0.0


def random_examples(
    lengths: np.ndarray, vocab_size: int, seed: int = 0, *, rated: bool = False
) -> Examples:
    """Random tokens with the given [n, 1 + K] lengths of a prompt and its K responses, which are
    chosen and rejected, or a list with random ratings.
    """
    rng = np.random.default_rng(seed)

    def tokens(n: int) -> np.ndarray:
        # ids below 4 are special tokens
        return rng.integers(4, vocab_size, n).astype(np.int32)

    examples = []
    for prompt, *rest in lengths.tolist():
        responses = tuple(tokens(n) for n in rest)
        scored = tuple(np.ones(len(x), bool) for x in responses)
        extras = {"ratings": rng.random(len(rest)).astype(np.float32)} if rated else {}
        examples.append(Example(tokens(prompt), responses, scored, extras))
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
    """One algorithm's step on a random tiny Llama in float32 with AdamW, on `random_examples` of
    these lengths, `pairs` (or lists) per step.
    """
    row, mesh = algorithms.get(algorithm), make_mesh(fsdp=-1)
    # what a run would compute in: bfloat16 products are slow on CPU
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    model = hub.init(TINY_LLAMA, key=jax.random.key(0), mesh=mesh, dtype=dtype)
    if lora:
        model = add_lora(model, rank=8, alpha=16.0, targets=r"attn\.(q|v)", rngs=nnx.Rngs(0))
    apply, params, base = functional(model, trainable_filter(model))
    rated = row.format.feedback == "list"
    examples = random_examples(lengths, TINY_LLAMA["vocab_size"], rated=rated)
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
    # the cache itself is not timed: it is filled once, before training
    if reference == "cached":
        source.columns = _zeros_for(row, len(examples))
        frozen = Frozen(base, None)
    # as in a run: without donation the state would be in memory twice
    step = jax.jit(make_train_step(row, apply, optimizer), donate_argnums=0)
    name = f"{algorithm} {layout} reference={reference}" + (" lora" if lora else "")
    return Work(name, step, state, frozen, source, mesh, (lengths.shape[1] - 1) * pairs)


def _zeros_for(row: Algorithm, n: int) -> dict[str, np.ndarray]:
    """Columns of zeros in place of cached reference log-probs; values do not affect the time."""
    names = [x for x in Objective.of(row).inputs if x.startswith("ref_")]
    return {x: np.zeros(n, np.float32) for x in names}


def config_step(options: RunOptions, *, random: bool = False) -> Work:
    """The step of a config on its own data and model.

    With `random`: random weights of the same architecture, and random tokens in examples of the
    maximum length, so that neither weights nor data are needed.
    """
    if options.algorithm.experience:
        raise ValueError("this algorithm samples its own data: jalign.bench.rollouts measures it")
    mesh = mesh_of(options.mesh)
    if random:
        model = load_roles(options, ModelSource(mesh, read=random_weights), None)
        examples = _random_examples(options, model.decoder.spec)
    else:
        tokenizer = tokenizer_of(options)
        examples, _ = build_data.examples_of(options, tokenizer)
        model = load_roles(options, ModelSource(mesh), tokenizer)
    spec = model.decoder.spec
    source = source_of(options, examples, mesh, spec)
    # four batches may be fewer than the run's warmup
    steps = max(steps_of(options, source.batches), options.optim.warmup_steps)
    optimizer, _ = options.optim.make(steps)
    state, frozen = initial_state(options, model, mesh, optimizer)
    row = options.trained_algorithm
    if options.reference == "cached":
        source.columns, frozen = _zeros_for(row, len(examples)), Frozen(frozen.base, None)
    step = jax.jit(make_train_step(row, model.apply, optimizer), donate_argnums=0)
    rows = options.batch_size * (row.format.k or 1)
    flops = 0.0
    if random:  # counted from the shape of a batch, which is full here
        with jax.set_mesh(mesh):
            flops = plan_data.step_flops(options, spec, source.batches.batch(0))[0]
    return Work(f"{row.name} on {model.path}", step, state, frozen, source, mesh, rows, flops)


def random_weights(
    name: str, *, key: Any = None, quant: str | None = None, **load_options: Any
) -> Any:
    """Like `hub.load`, with random weights of the same architecture."""
    model = hub.init(config_of(name)[0], key=jax.random.key(0), **load_options)
    if quant:
        quantize_in_place(model, quant)
        # the codes come out of a jit without the mesh's rules
        place(model, load_options["mesh"], load_options.get("rules"))
    return model


def _random_examples(options: RunOptions, spec: Any) -> Examples:
    """Examples of the maximum length for four steps."""
    count, k = 4 * options.batch_size, plan_data.responses_of(options)
    examples = plan_data.longest_examples(options, spec, count, k)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, spec.vocab_size, len(examples.tokens), np.int32)
    rest = examples.scored, examples.bounds, examples.first, examples.extras, examples.report
    return Examples(tokens, *rest)
