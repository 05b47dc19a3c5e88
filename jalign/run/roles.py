"""The only place where a `RunOptions` becomes objects."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from jalign import embedded
from jalign.core import Frozen, TrainState
from jalign.data.budget import Cost
from jalign.data.chat import ends_of, load_tokenizer
from jalign.data.examples import Examples
from jalign.data.pipeline import Batches
from jalign.data.templates import template_source
from jalign.kernels import devices
from jalign.models import hub
from jalign.models.adapters import peft
from jalign.models.adapters.lora import adapters, add_lora, trainable_filter, without_dropout
from jalign.models.decoder import Decoder
from jalign.models.functional import StandaloneModel, functional, policy_of
from jalign.models.heads import ScalarHead, initial_kernel
from jalign.models.prune import first_layers
from jalign.models.quant import quantize_in_place
from jalign.models.score import HEADS
from jalign.models.spec import Spec
from jalign.options import RunOptions
from jalign.parallel import hosts
from jalign.parallel.memory import to_host
from jalign.parallel.mesh import batch_shards, make_mesh
from jalign.parallel.rules import Rules, shardings
from jalign.rollout.sampler import Settings, continuation, sample
from jalign.train.source import Offline
from jalign.train.state import init_state, reference_copy


class Bare(NamedTuple):
    """Frozen weights that adapters stand on, and where they came from: the roles of a run (policy,
    critic, reward model) that say the same of both share one copy.
    """

    origin: tuple[Any, ...]
    decoder: Decoder

    def twin(self) -> Decoder:
        """Another module with the very same arrays."""
        return nnx.merge(*nnx.split(self.decoder))


@dataclass
class Model:
    """A loaded model, split into what is trained and what is not."""

    path: str
    decoder: Decoder  # as loaded; its arrays are those of `params` and `base`
    tokenizer: Any
    apply: Any
    params: Any
    base: Any
    reference: StandaloneModel | None = None  # another model than the one that is trained
    bare: Bare | None = None


SHARED = "shared"  # as model.critic: a head on the policy


def mesh_of(options: RunOptions) -> Mesh:
    c = options.mesh
    return make_mesh(c.data, c.fsdp, c.tensor, c.context)


def rules_of(options: RunOptions) -> Rules | None:
    """The config's own sharding rules; None is the default."""
    return [(name, PartitionSpec(*axes)) for name, axes in options.mesh.rules.items()] or None


def model_path(name: str) -> str:
    """Folder or hub name of a model; of a run (RUN, RUN@STEP, RUN@best) the folder of its model,
    which is written when it is asked for the first time.
    """
    from jalign.run import run_model  # which builds the run's own model

    name = os.path.expanduser(name)
    if name == "embedded":
        return str(embedded.path())
    if run := run_model.named(name):
        return run_model.folder_of(*run)
    folder = Path(name)
    if (folder / peft.CONFIG).is_file() and not (folder / "config.json").is_file():
        raise ValueError(
            f"{name} is an adapter: name its base as the model, {peft.base_of(folder)}, and the "
            "adapter as model.adapter"
        )
    return name


def tokenizer_of(options: RunOptions) -> Any:
    """The tokenizer, with the chat template of the run: who samples or exports has both."""
    tokenizer = load_tokenizer(model_path(options.model.tokenizer or options.model.path))
    if options.data.template:
        tokenizer.chat_template = template_source(tokenizer, options.data.template)
    return tokenizer


def compute_dtype(name: str) -> Any:
    """float32 on CPU, bfloat16 on accelerators, unless named."""
    if name == "auto":
        name = "float32" if devices.platform() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def model_of(
    options: RunOptions,
    mesh: Mesh,
    tokenizer: Any,
    beside: Bare | None = None,
    load: Callable[..., Decoder] | None = None,
) -> Model:
    """Load what a run needs straight into its shardings: the model with the heads and adapters
    that are asked for, a critic beside it, another model as its reference. Frozen weights that are
    those of `beside` are not loaded again. `load` is what reads a checkpoint instead of `hub.load`.
    """
    c, algorithm = options.model, options.algorithm
    path = model_path(c.path)
    shared = algorithm.needs_critic and c.critic == SHARED
    heads = 1 if shared else c.heads * algorithm.needs_value_head
    vocabulary = reads_vocabulary(options)
    decoder, bare = trained(
        options, mesh, path, heads=heads, seed=0, beside=beside, lm_head=vocabulary, load=load
    )
    critic, reference = None, None
    if algorithm.needs_critic and not shared:
        start = model_path(c.critic or c.path)
        own = {"heads": 1, "seed": 2, "lm_head": False}
        critic, _ = trained(options, mesh, start, **own, beside=bare, load=load)
    if c.reference:
        other = loaded(options, mesh, model_path(c.reference), compute_dtype(c.dtype), load)
        if other.spec.vocab_size != decoder.spec.vocab_size:
            raise ValueError(
                f"model.reference has a vocabulary of {other.spec.vocab_size} tokens, the model "
                f"one of {decoder.spec.vocab_size}: they must share a tokenizer"
            )
        reference = StandaloneModel.of(other)
    apply, params, base = functional(decoder, trainable_filter(decoder), critic)
    return Model(path, decoder, tokenizer, apply, params, base, reference, bare)


def loaded(
    options: RunOptions,
    mesh: Mesh,
    path: str,
    param_dtype: Any,
    load: Callable[..., Decoder] | None = None,
    **load_options: Any,
) -> Decoder:
    """A model as it is, with the kernels and types of a config."""
    c = options.model
    return (load or hub.load)(
        path,
        dtype=compute_dtype(c.dtype),
        param_dtype=param_dtype,
        mesh=mesh,
        rules=rules_of(options),
        remat=c.remat,
        attention=None if c.attention == "auto" else c.attention,
        **load_options,
    )


def trained(
    options: RunOptions,
    mesh: Mesh,
    path: str,
    *,
    heads: int,
    seed: int,
    lm_head: bool,
    beside: Bare | None = None,
    load: Callable[..., Decoder] | None = None,
) -> tuple[Decoder, Bare | None]:
    """A model that is trained, with its adapters, and the frozen weights they stand on; `seed`
    tells several of a run apart, `load` is what reads a checkpoint instead of `hub.load`.
    """
    c, key = options.model, jax.random.key(options.seed)
    frozen_base = bool(c.lora or c.adapter)
    dtype = compute_dtype(c.dtype) if frozen_base else jnp.float32
    head_key = jax.random.fold_in(key, seed) if seed else key
    origin = (path, dtype, c.remat, c.attention, c.depth, c.quant, options.mesh)
    if frozen_base and beside and beside.origin == origin:
        decoder = beside.twin()
        if heads:
            head = ScalarHead(decoder.spec.width, heads, param_dtype=dtype, rngs=nnx.Rngs(0))
            head.kernel[...] = initial_kernel(head_key, *head.kernel.shape).astype(dtype)
            decoder.value = head
    else:
        decoder = loaded(
            options, mesh, path, dtype, load, value_head=heads, lm_head=lm_head, key=head_key
        )
        decoder = first_layers(decoder, c.depth) if c.depth else decoder
        if c.quant != "none":
            quantize_in_place(decoder, c.quant)
            state = nnx.state(decoder)
            nnx.update(decoder, jax.device_put(state, shardings(mesh, state, rules_of(options))))
    bare = None
    if frozen_base:
        bare = Bare(origin, nnx.merge(*nnx.split(decoder)))
        bare.decoder.value = None
    if c.adapter and c.lora:
        raise ValueError("model.adapter brings its own adapters: leave out model.lora")
    if c.adapter:
        decoder = peft.load_adapter(decoder, c.adapter)
        if not adapters(decoder):
            raise ValueError(
                f"model.adapter: {c.adapter} has nothing beside the linear layers that could be "
                "trained; merge it into its base with peft first"
            )
        if options.algorithm.needs_reference():  # as in RunOptions: no dropout there
            decoder = without_dropout(decoder)
    elif c.lora:
        decoder = add_lora(
            decoder,
            rank=c.lora.rank,
            alpha=c.lora.alpha,
            dropout=c.lora.dropout,
            targets=c.lora.targets,
            rank_stabilised=c.lora.rank_stabilised,
            rngs=nnx.Rngs(params=jax.random.fold_in(key, seed + 1)),
        )
    if frozen_base:  # adapters and heads are made on one device
        fresh = nnx.state(decoder, trainable_filter(decoder))
        nnx.update(decoder, jax.device_put(fresh, shardings(mesh, fresh)))
    return decoder, bare


def merged(model: Model, params: Any) -> tuple[nnx.GraphDef[Decoder], nnx.State]:
    """The whole model with these trainable parameters, as the sampler and the exporter take it."""
    return nnx.graphdef(model.decoder), nnx.merge_state(policy_of(params), policy_of(model.base))


def source_of(options: RunOptions, examples: Examples, mesh: Mesh, spec: Spec) -> Offline:
    """The examples as batches over the mesh."""
    if options.batch_size > len(examples):
        raise ValueError(
            f"batch_size is {options.batch_size}, but there are only {len(examples)} "
            "training examples"
        )
    return Offline(batches_of(options, examples, mesh, spec, options.batch_size), mesh)


def held_source_of(options: RunOptions, examples: Examples, mesh: Mesh, spec: Spec) -> Offline:
    """The held-out examples; there may be fewer of them than a batch holds."""
    size = min(options.batch_size, len(examples))
    return Offline(batches_of(options, examples, mesh, spec, size), mesh)


def cost_of(spec: Spec) -> Cost:
    """What places in a batch cost with this model on this kind of device: batch shapes follow
    it.
    """
    per_bin = 32.0 if devices.platform() == "cpu" else 128.0
    return Cost.of_model(spec.width, spec.depth, spec.vocab_size, bin=per_bin)


def usual_tokens(platform: str | None = None) -> int:
    """Tokens of a micro-batch that suit this kind of device: on CPU they stay in its caches."""
    return 2048 if (platform or devices.platform()) == "cpu" else 8192


def usual_multiple() -> int:
    """Row lengths and token budgets are multiples of it."""
    return 64 if devices.platform() == "cpu" else 128


def max_tokens_for(examples: Examples) -> int:
    """Tokens of a micro-batch that suit this kind of device, and hold the longest example."""
    usual = usual_tokens()
    prompt, response, _ = examples.lengths()
    most = response.max(initial=0)  # a binary example gets another's response beside its own
    flat = (prompt + response.sum(1)).max(initial=0) + most + 1
    padded = max(response.shape[1], 2) * (-(-(prompt.max(initial=0) + most) // 128) * 128)
    return max(usual, -(-int(max(flat, padded)) // 128) * 128)


def batches_of(
    options: RunOptions, examples: Examples, mesh: Mesh, spec: Spec, batch_size: int
) -> Batches:
    """The examples in bins of static shapes."""
    return Batches(
        examples,
        batch_size=batch_size,
        layout=options.data.layout,
        streams=batch_shards(mesh),
        max_tokens=options.data.max_tokens or max_tokens_for(examples),
        multiple=usual_multiple(),
        seed=options.seed,
        group_by_length=options.data.group_by_length,
        shuffle=options.data.shuffle,
        mismatch=reads_mismatched(options),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        cost=cost_of(spec),
    )


def reads_vocabulary(options: RunOptions) -> bool:
    """Whether the policy is asked for more than its scalar head."""
    row = options.algorithm
    outputs = row.outputs(row.inputs())
    return not row.needs_value_head or any(output not in HEADS for output in outputs)


def reads_mismatched(options: RunOptions) -> bool:
    """Whether the loss compares each response with one that belongs to another prompt (KTO)."""
    return "kl_present" in options.algorithm.inputs()


def steps_of(options: RunOptions, batches: Batches) -> int:
    return options.steps or max(1, int(options.epochs * batches.steps_per_epoch))


def state_of(
    options: RunOptions, model: Model, mesh: Mesh, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Frozen]:
    """The state of step 0 and what stays as it is."""
    algorithm = options.algorithm
    offload = options.optim.offload == "host"
    state = init_state(mesh, model.params, optimizer, algorithm, options.seed, offload=offload)
    ref = model.reference
    if algorithm.needs_reference() and state.ref is None and ref is None:
        ref = reference_copy(policy_of(model.params), model.decoder.dtype)
    if ref is not None and options.model.reference_offload == "host":
        ref = to_host(ref)
    return state, Frozen(model.base, ref)


def shown_prompts(options: RunOptions, held: Examples | None) -> list[tuple[int, np.ndarray]]:
    """The held-out prompts that `sample.prompts` asks for, with the numbers of their examples."""
    found: dict[bytes, tuple[int, np.ndarray]] = {}
    for i, example in enumerate(held or ()):
        if len(found) == options.sample.prompts:
            break
        if len(example.prompt):
            found.setdefault(example.prompt.tobytes(), (i, example.prompt))
    return list(found.values())


def generator_of(options: RunOptions, model: Model, held: Examples | None) -> Any:
    """`(state, frozen) -> rows of prompt and continuation` for the first held-out prompts."""
    c, tokenizer = options.sample, model.tokenizer
    prompts = [prompt for _, prompt in shown_prompts(options, held)]
    if not prompts:
        raise ValueError("sample.prompts needs held-out examples with prompts; there are none")
    lengths = np.array([len(p) for p in prompts])
    tokens = np.zeros((len(prompts), lengths.max()), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    settings = Settings(
        max_new_tokens=c.max_new_tokens,
        temperature=c.temperature,
        eos=eos_ids(model.path, tokenizer),
    )

    def generate(state: TrainState, frozen: Frozen) -> list[dict[str, str]]:
        del frozen
        key = jax.random.fold_in(jax.random.key(options.seed), 2)
        out = sample(merged(model, state.params), tokens, lengths, key, settings)
        ids, mask = hosts.gather(out.tokens), hosts.gather(out.mask)
        return [
            {
                "prompt": tokenizer.decode(p, skip_special_tokens=True),
                "continuation": continuation(tokenizer, p.tolist(), i[m].tolist(), settings.eos),
            }
            for p, i, m in zip(prompts, ids, mask, strict=True)
        ]

    return generate


def eos_ids(path: str, tokenizer: Any) -> tuple[int, ...]:
    """What ends a response wherever one is sampled: the tokenizer's EOS, the end of turn of its
    chat template, and the EOS tokens of the model's generation options (else of its options).
    """
    ids, folder = set(ends_of(tokenizer)), hub.find(path)
    files = (folder / name for name in ("generation_config.json", "config.json"))
    if file := next((file for file in files if file.is_file()), None):
        more = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        ids |= set(more if isinstance(more, list) else [] if more is None else [more])
    return tuple(sorted(ids))
