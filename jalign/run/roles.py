"""The models of a run: policy, critic and reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from jalign.core import Frozen, TrainState
from jalign.models.adapters.lora import trainable_filter, without_dropout
from jalign.models.decoder import Decoder
from jalign.models.functional import StandaloneModel, functional, policy_of
from jalign.models.score import HEADS
from jalign.options import RunOptions
from jalign.parallel.memory import to_host
from jalign.parallel.rules import place
from jalign.run.decoders import FrozenBase, Source, read_decoder, trained_decoder, with_head
from jalign.run.devices import compute_dtype
from jalign.run.policy import Policy, model_path
from jalign.train.objective import Apply
from jalign.train.state import init_state, reference_copy

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import PyTree

SHARED_CRITIC = "shared"
"""Value of model.critic for a scalar head on the policy."""


@dataclass
class Roles:
    """Loaded models, split into trainable and frozen parameters.

    Attributes:
      path: folder or hub name of the policy's weights.
      decoder: the policy; its arrays are those of `params` and `base`.
      apply: the models as one pure function (`jalign.models.functional`).
      params: trainable parameters, the critic's included.
      base: the frozen weights.
      reference: a reference model that is not a copy of the policy, such as a teacher.
      shared_base: the frozen base under the policy's adapters, for further roles.
    """

    path: str
    decoder: Decoder
    tokenizer: Any
    apply: Apply
    params: Any
    base: Any
    reference: StandaloneModel | None = None
    shared_base: FrozenBase | None = None

    def sampling_weights(self, params: PyTree) -> tuple[nnx.GraphDef[Decoder], nnx.State]:
        """(graphdef, state) of the policy with these trained parameters."""
        return nnx.graphdef(self.decoder), nnx.merge_state(policy_of(params), policy_of(self.base))


def load_roles(
    options: RunOptions,
    source: Source,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    policy: Policy | None = None,
    reference: Policy | None = None,
    shared_base: FrozenBase | None = None,
    path_of: Callable[[str], str] = model_path,
) -> Roles:
    """Load the models that the algorithm needs straight into their shardings.

    Args:
      policy: a loaded model to train instead of loading `model.path`.
      reference: a loaded model as the reference instead of `model.reference`.
      shared_base: frozen weights that are already loaded.
      path_of: resolves model names.

    Raises:
      ValueError: the reference has another vocabulary.
    """
    c, row = options.model, options.algorithm
    path = policy.path if policy else path_of(c.path)
    shares_critic = row.needs_critic and c.critic == SHARED_CRITIC
    heads = 1 if shares_critic else c.heads * row.needs_value_head
    if policy:
        decoder, base = _with_heads(options, policy, heads, source), policy.shared_base
    else:
        decoder, base = trained_decoder(
            options,
            source,
            path,
            heads=heads,
            seed=0,
            lm_head=reads_vocabulary(options),
            shared_base=shared_base,
        )
    if options.rollout.batch_invariant:
        decoder.set_batch_invariant()
    critic = None
    if row.needs_critic and not shares_critic:
        start = path_of(c.critic) if c.critic else path
        # without the unembedding, often the largest array: a critic reads no log-probs
        critic, _ = trained_decoder(
            options, source, start, heads=1, seed=2, lm_head=False, shared_base=base
        )
    other = reference.decoder if reference else None
    if c.reference and other is None:
        dtype, name = compute_dtype(c.dtype), path_of(c.reference)
        other = source.place(lambda: read_decoder(options, source, name, dtype))
    # token by token, the same id would be another token: log-ratios would be finite and wrong
    if other is not None and other.spec.vocab_size != decoder.spec.vocab_size:
        raise ValueError(
            f"model.reference has a vocabulary of {other.spec.vocab_size} tokens, the model "
            f"one of {decoder.spec.vocab_size}: they must share a tokenizer"
        )
    standalone = None if other is None else StandaloneModel.of(other)
    apply, params, frozen = functional(decoder, trainable_filter(decoder), critic)
    return Roles(path, decoder, tokenizer, apply, params, frozen, standalone, base)


def _with_heads(options: RunOptions, policy: Policy, heads: int, source: Source) -> Decoder:
    """A new module with the policy's arrays and the heads that the algorithm reads."""
    # the caller's policy keeps its heads
    decoder = nnx.merge(*nnx.split(policy.decoder))
    if options.model.adapter and options.algorithm.needs_reference():
        decoder = without_dropout(decoder)  # policy and reference are equal at step 0
    if not reads_vocabulary(options):
        decoder.lm_head = nnx.data(None)  # else weight decay would shrink what nothing reads
    if not heads or decoder.value is not None:
        return decoder
    dtype = policy.decoder.dtype if policy.shared_base else jnp.float32
    decoder = with_head(decoder, heads, dtype, jax.random.key(options.seed))
    place(decoder.value, source.mesh)
    return decoder


def reads_vocabulary(options: RunOptions) -> bool:
    """Whether the algorithm reads more from the policy than its scalar head."""
    row = options.algorithm
    outputs = row.outputs(row.inputs())
    return not row.needs_value_head or any(output not in HEADS for output in outputs)


def initial_state(
    options: RunOptions,
    roles: Roles,
    mesh: Mesh,
    optimizer: optax.GradientTransformation,
    *,
    init: Callable[..., TrainState] = init_state,
    copy: Callable[[PyTree, DTypeLike], PyTree] = reference_copy,
    move: Callable[[PyTree], PyTree] = to_host,
) -> tuple[TrainState, Frozen]:
    """The training state of step 0 and the frozen arrays.

    Args:
      init, copy, move: create the state, copy the reference, move it to host memory; `jalign.plan`
        passes functions that compute only shapes.
    """
    row = options.algorithm
    offload = options.optim.offload == "host"
    state = init(mesh, roles.params, optimizer, row, options.seed, offload=offload)
    ref = roles.reference
    # a moving reference is part of the state, and a teacher is loaded: neither is a copy
    if row.needs_reference() and state.ref is None and ref is None:
        ref = copy(policy_of(roles.params), roles.decoder.dtype)
    if ref is not None and options.model.reference_offload == "host":
        ref = move(ref)
    return state, Frozen(roles.base, ref)
