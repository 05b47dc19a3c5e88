"""Per-example rewards and KL of a model on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jalign.core import Algorithm, Arrays, Frozen, Mean, arrays_of
from jalign.layout import MicroBatches
from jalign.parallel import hosts
from jalign.signatures import unchecked
from jalign.train.objective import Apply, Objective
from jalign.train.step import all_fields, as_micro_batches, concatenate

if TYPE_CHECKING:
    from jaxtyping import PyTree

REWARDS = ("chosen_rewards", "rejected_rewards")
_OF_DATA = ("chosen_len", "rejected_len", "index", "source")

ExampleStep = Callable[[Any, Frozen, Arrays, Any], tuple[Arrays, ...]]


def gives_rewards(algorithm: Algorithm, **hyper: float) -> bool:
    """Whether the loss reports rewards of chosen and rejected responses: scores of a reward model
    or implicit rewards of a policy. Not all pair losses do.
    """
    if "chosen_len" not in algorithm.format.mask_fields:
        return False
    main = algorithm.objective_terms(**hyper)[0]
    fn = unchecked(main.loss)
    _, named = jax.eval_shape(partial(fn, **main.hyper), *map(algorithm.example, arrays_of(fn)))
    return set(REWARDS) <= set(named)


def make_example_step(algorithm: Algorithm, apply: Apply, **hyper: float) -> ExampleStep:
    """`(params, frozen, carry, data) -> per stack of micro-batches {name: [slots]}`; jit it.

    `data` is a `Batch`, a `MicroBatches` or a tuple of them. Names: `chosen_rewards` and
    `rejected_rewards` as the loss reports them; `chosen_len` and `rejected_len` in scored tokens;
    `index` and `source` if the batch has them; `present`, whether a slot holds an example. Values
    in empty slots are arbitrary.

    Args:
      algorithm: a row whose loss `gives_rewards`.
      apply, hyper: as in `train.step.make_eval_step`.

    Raises:
      ValueError: the loss reports no rewards of pairs.
    """
    if not gives_rewards(algorithm, **hyper):
        raise ValueError(f"{algorithm.name} reports no rewards of chosen and rejected responses")
    objective = Objective.of(algorithm, **hyper)
    # auxiliary losses come after it and report no rewards
    main = objective.terms[0]

    def rewards_of(fields: Arrays) -> Arrays:
        fields = fields | objective.noise(fields, None)
        _, named = main.loss(**{n: fields[n] for n in arrays_of(main.loss)}, **main.hyper)
        facts = {n: fields[n] for n in ("present", *_OF_DATA) if n in fields}
        return facts | {n: named[n] for n in REWARDS}

    def step(params: PyTree, frozen: Frozen, carry: Arrays, data: Any) -> tuple[Arrays, ...]:
        # no random key: without one there is no dropout
        stacks = all_fields(objective, apply, params, carry, frozen, as_micro_batches(data), None)
        # a batch-coupled loss is defined on the global batch only
        return tuple(map(rewards_of, [concatenate(stacks)] if algorithm.batch_coupled else stacks))

    return step


def per_example(
    step: ExampleStep,
    params: PyTree,
    frozen: Frozen,
    carry: Arrays,
    batches: Iterable[tuple[MicroBatches, ...]],
) -> dict[str, np.ndarray]:
    """Arrays [examples] on the host, in the order of the data (by `index`, if present)."""
    arrays = []
    for data in batches:
        for stack in step(params, frozen, carry, data):
            host = {name: hosts.gather(x) for name, x in stack.items()}
            # values in empty slots are arbitrary: they are dropped before anything is averaged
            here = host.pop("present")
            arrays.append({name: x[here] for name, x in host.items()})
    joined = {name: np.concatenate([a[name] for a in arrays]) for name in arrays[0]}
    if "index" not in joined:
        return joined
    # packing takes long examples first; a report is in the order of the data
    order = np.argsort(joined["index"], kind="stable")
    return {name: x[order] for name, x in joined.items()}


def make_kl_step(apply: Apply, responses: int | None = None) -> Callable[..., Mean]:
    """`(params, base, start, data) -> Mean` of KL(policy || start), nats per scored token; add the
    Means over batches, jit it.

    The KL is exact at every position: over the full vocabulary, given the preceding held-out text.
    It is not the KL of responses sampled from the policy.

    Args:
      apply: `models.functional.functional`'s; `start` are parameters like `params`.
      responses: number of leading responses per prompt to count (in binary data the others belong
        to another prompt); None counts all.
    """

    def step(params: PyTree, base: PyTree, start: PyTree, data: Any) -> Mean:
        total = Mean(jnp.float32(0.0), jnp.float32(0.0))
        for part in as_micro_batches(data):

            def body(i: Any, total: Mean, part: MicroBatches = part) -> Mean:
                batch = jax.tree.map(lambda x: jnp.asarray(x)[i], part.batch)
                out = apply(params, base, batch.layout, ("kl_to_ref",), None, reference=start)
                kl = out["kl_to_ref"].reshape(batch.mask.shape)
                counted = Mean.of(kl[:, :responses], batch.mask[:, :responses])
                return jax.tree.map(jnp.add, total, counted)

            # the count is an array: one program for every number of micro-batches
            total = jax.lax.fori_loop(0, part.count, body, total)
        return total

    return step
