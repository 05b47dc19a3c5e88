"""One optimizer step for every algorithm: `(state, frozen, parts) -> (state, metrics)`.

The step's examples come as micro-batches of static shape (`layout.MicroBatches`). Their gradients
are summed with the divisors of the WHOLE step, which follow from the masks alone, so any cutting
into micro-batches or devices gives the same gradient. Loops run over the filled micro-batches only.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import PyTree

from jalign.core import Algorithm, Arrays, Frozen, Mean, TrainState
from jalign.layout import Batch, MicroBatches
from jalign.models.functional import policy_of
from jalign.parallel.memory import to_device, to_host_like
from jalign.train.objective import Apply, Objective

Data = Batch | MicroBatches | tuple[MicroBatches, ...]
"""The examples of one step."""

TrainStepFn = Callable[[TrainState, Frozen, tuple[MicroBatches, ...]], tuple[TrainState, Arrays]]


def create_state(
    params: PyTree,
    optimizer: optax.GradientTransformation,
    algorithm: Algorithm,
    key: Array,
    **hyper: float,
) -> TrainState:
    """The state before the first step of `algorithm` with hyper-parameters `hyper`.

    Moving references are part of it: copies of the policy in float32, since lower precision would
    round away the small steps of a slow average.
    """
    moving = {"ref": algorithm.moves_reference(**hyper), "last": algorithm.has_last(**hyper)}
    # Copied, since the policy's buffers are donated to the step.
    copies = {
        name: jax.tree.map(jnp.copy, policy_of(params)) for name, moves in moving.items() if moves
    }
    return TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=optimizer.init(params),
        carry=algorithm.carry.start() if algorithm.carry else {},
        key=key,
        skipped=jnp.int32(0),
        skipped_in_a_row=jnp.int32(0),
        **copies,
    )


def with_reference(frozen: Frozen, state: TrainState) -> Frozen:
    """`frozen` with the moving references that the state has."""
    frozen = frozen if state.ref is None else replace(frozen, ref=state.ref)
    return frozen if state.last is None else replace(frozen, last=state.last)


def make_train_step(
    algorithm: Algorithm,
    apply: Apply,
    optimizer: optax.GradientTransformation,
    **hyper: float,
) -> TrainStepFn:
    """Build the step of `algorithm` with hyper-parameters `hyper`; jit it with `donate_argnums=0`.

    Pass the options of `jalign.kernels.compiler_options`, too: without them XLA rounds a bfloat16
    policy and its reference at different operations on CPU, so that at step 0 a response's
    log-ratio is up to about 0.1 nat instead of 0, and the products of a TPU run slower.

    A step whose loss or gradient is not finite changes only the counters `skipped` and
    `skipped_in_a_row`, and the step number, which selects the next data. A step without scored
    tokens, or with weights of 0 only, changes only the step number: an update would move the
    weights by momentum. A reference that is due to move does so after any step. An optimizer state
    in host memory is moved to the device for its update and back.

    Extragradient (`Algorithm.last`, "half_step"): of two steps the first moves `last` alone, to
    where the policy would be; the second moves the policy, with the optimizer state that the first
    began with, and `last` with it.

    Args:
      algorithm: a row of the catalogue.
      apply: `models.score.functional`'s, or any `(params, base, layout, outputs, key) -> {output:
        [B, K, R]}`.
      optimizer: an optax transformation.
      hyper: the algorithm's hyper-parameters; an unknown one is a TypeError.
    Returns:
      A function of (state, frozen, data), data being a `Batch`, a `MicroBatches` or a
        tuple of them.
      Metrics are scalars; `loss` and `grad_norm` (before clipping) are always among them. A mean
      over no example of the step (`rewards/chosen` of KTO without a desirable one) is NaN.
    """
    objective = Objective.of(algorithm, **hyper)
    hyper = algorithm.resolve_hyper(**hyper)

    def step(state: TrainState, frozen: Frozen, data: Data) -> tuple[TrainState, Arrays]:
        stacks, frozen = as_micro_batches(data), with_reference(frozen, state)
        # A base key and the step number: no key state that a resumed run could lose.
        key = jax.random.fold_in(state.key, state.step)
        divisors = _divisors(objective, stacks)
        # A single micro-batch is the global batch: one pass is exact there.
        coupled = algorithm.batch_coupled and not _is_single(stacks)
        gradient = _two_pass_gradient if coupled else _summed_gradient
        grads, loss, means = gradient(objective, apply, state, frozen, stacks, divisors, key)
        norm = optax.tree.norm(grads)
        metrics = {"loss": loss, "grad_norm": norm}
        stored, state = state.opt_state, replace(state, opt_state=to_device(state.opt_state))
        new = _update(algorithm, optimizer, state, grads, means)
        bad = ~(jnp.isfinite(loss) & jnp.isfinite(norm))
        old = replace(
            state,
            step=new.step,
            skipped=state.skipped + bad,
            skipped_in_a_row=state.skipped_in_a_row + bad,
        )
        # `where` would promote a dtype silently; then the next step compiles again, and the state
        # no longer fits its checkpoint. An optimizer or carry of a user's own is the likely cause.
        chex.assert_trees_all_equal_shapes_and_dtypes(new, old)
        # Selected on the device, so that the state can be donated and the host does not wait.
        # optax.apply_if_finite would let a bad update through after a number of them.
        scored = jnp.any(divisors > 0)
        new = jax.tree.map(lambda a, b: jnp.where(~bad & scored, a, b), new, old)
        new = _with_moved_references(algorithm, new, state, hyper)
        new = replace(new, opt_state=to_host_like(new.opt_state, stored))
        metrics |= _scalars({name: mean.shown for name, mean in means.items()})
        return new, metrics | {"skipped_in_a_row": new.skipped_in_a_row, "skipped": new.skipped}

    return step


def make_eval_step(
    algorithm: Algorithm, apply: Apply, **hyper: float
) -> Callable[..., dict[str, Mean]]:
    """`(params, frozen, carry, data) -> {metric: Mean}` of one global batch; add the Means over
    batches.
    """
    objective = Objective.of(algorithm, **hyper)

    def evaluate(params: PyTree, frozen: Frozen, carry: Arrays, data: Data) -> dict[str, Mean]:
        stacks = as_micro_batches(data)
        fields = all_fields(objective, apply, params, carry, frozen, stacks, None)
        divisors = _divisors(objective, stacks)
        if len(fields) == 1 or algorithm.batch_coupled:
            joined = concatenate(fields)
            values = [objective.value(joined | objective.noise(joined, None), divisors)]
        else:  # token-level arrays of different lengths cannot be one array
            values = [objective.value(f, divisors) for f in fields]
        losses, means = zip(*values, strict=True)
        # Weighted by its divisor, the loss of several batches is that of all their examples.
        loss = Mean(jnp.sum(jnp.stack(losses)) * divisors[0], divisors[0])
        total = jax.tree.map(lambda *x: jnp.sum(jnp.stack(x), 0), *means)
        return {name: mean for name, mean in total.items() if not mean.count.ndim} | {"loss": loss}

    return evaluate


def as_micro_batches(data: Data) -> tuple[MicroBatches, ...]:
    """A plain `Batch` is one micro-batch."""
    if isinstance(data, Batch):
        return (MicroBatches(jax.tree.map(lambda x: x[None], data), jnp.int32(1)),)
    return (data,) if isinstance(data, MicroBatches) else tuple(data)


def _divisors(objective: Objective, stacks: tuple[MicroBatches, ...]) -> Array:
    """What each term is divided by in the whole step, [terms]."""
    return jnp.sum(jnp.stack([jax.vmap(objective.divisors)(p.batch).sum(0) for p in stacks]), 0)


def _is_single(stacks: tuple[MicroBatches, ...]) -> bool:
    return len(stacks) == 1 and stacks[0].batch.mask.shape[0] == 1


def _at(stack: MicroBatches, i: Any) -> Batch:
    return jax.tree.map(lambda x: jnp.asarray(x)[i], stack.batch)


def _summed_gradient(objective, apply, state, frozen, stacks, divisors, key):
    """Sum of the micro-batches' gradients, for losses that treat examples independently."""

    def loss_of(params, batch, key):
        fields = batch.extras | objective.carried(state.carry, batch.extras)
        fields |= objective.policy_fields(apply, params, frozen, batch, key)
        fields |= objective.reference_fields(apply, frozen, batch)
        return objective.value(fields | objective.noise(fields, key), divisors)

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)
    if _is_single(stacks):
        (loss, means), grads = gradient_of(state.params, _at(stacks[0], 0), key)
        return grads, loss, means
    shapes = jax.eval_shape(gradient_of, state.params, _at(stacks[0], 0), key)
    total = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    for n, stack in enumerate(stacks):
        keys = jax.random.fold_in(key, n)

        def body(i, total, stack=stack, keys=keys):
            more = gradient_of(state.params, _at(stack, i), jax.random.fold_in(keys, i))
            return jax.tree.map(jnp.add, total, more)

        # `count` is traced: micro-batches that are not filled cost nothing.
        total = jax.lax.fori_loop(0, stack.count, body, total)
    (loss, means), grads = total
    return grads, loss, means


def _two_pass_gradient(objective, apply, state, frozen, stacks, divisors, key):
    """Exact gradients of batch-coupled losses: score all micro-batches, differentiate the loss by
    the scores, then backpropagate each micro-batch's share through the model. The global batch
    costs one more forward pass.
    """
    stacked = all_fields(objective, apply, state.params, state.carry, frozen, stacks, key)
    sizes = [s["present"].shape[0] for s in stacked]
    read = [n for n in objective.inputs if n in objective.algorithm.format.reads]
    joined = concatenate(stacked)
    # Over the joined batch: the noise belongs to examples, whichever micro-batch they are in.
    joined |= objective.noise(joined, key)

    def loss_of(scores):
        return objective.value(joined | scores, divisors)

    scores = {n: joined[n] for n in read}
    (loss, means), cotangents = jax.value_and_grad(loss_of, has_aux=True)(scores)
    grads = jax.tree.map(jnp.zeros_like, state.params)
    start = 0
    for n, (stack, size) in enumerate(zip(stacks, sizes, strict=True)):
        count = stack.batch.mask.shape[0]
        share = {
            k: c[start : start + size].reshape(count, -1, *c.shape[1:])
            for k, c in cotangents.items()
        }
        keys = jax.random.fold_in(key, n)

        def body(i, grads, stack=stack, share=share, keys=keys):
            # The keys of the first pass: other dropout would not fit the cotangents.
            batch, part_key = _at(stack, i), jax.random.fold_in(keys, i)

            def scores_of(params):
                fields = objective.policy_fields(apply, params, frozen, batch, part_key)
                return {name: fields[name] for name in read}

            _, pull = jax.vjp(scores_of, state.params)
            return jax.tree.map(jnp.add, grads, pull({k: c[i] for k, c in share.items()})[0])

        grads = jax.lax.fori_loop(0, stack.count, body, grads)
        start += size
    return grads, loss, means


def all_fields(
    objective: Objective,
    apply: Apply,
    params: PyTree,
    carry: Arrays,
    frozen: Frozen,
    stacks: tuple[MicroBatches, ...],
    key: Array | None,
) -> list[Arrays]:
    """Every field of every micro-batch, forward only, one dictionary of [slots, ...] per stack."""
    out = []
    for n, stack in enumerate(stacks):
        keys = None if key is None else jax.random.fold_in(key, n)

        def fields_of(i, stack=stack, keys=keys):
            batch = _at(stack, i)
            part_key = None if keys is None else jax.random.fold_in(keys, i)
            fields = objective.policy_fields(apply, params, frozen, batch, part_key)
            return fields | objective.reference_fields(apply, frozen, batch)

        empty = jax.tree.map(
            lambda s, stack=stack: jnp.zeros((stack.batch.mask.shape[0], *s.shape), s.dtype),
            jax.eval_shape(fields_of, 0),
        )

        def body(i, buffer, fields_of=fields_of):
            return jax.tree.map(lambda b, x: b.at[i].set(x), buffer, fields_of(i))

        fields = jax.lax.fori_loop(0, stack.count, body, empty)
        fields = stack.batch.extras | fields
        flat = {k: jnp.asarray(v).reshape(-1, *v.shape[2:]) for k, v in fields.items()}
        out.append(flat | objective.carried(carry, flat))
    return out


def concatenate(fields: list[Arrays]) -> Arrays:
    """One dictionary of all slots. Token-level arrays of different lengths cannot be concatenated
    and are left out; no batch-coupled loss reads any (`Algorithm` ensures that).
    """
    if len(fields) == 1:
        return fields[0]
    alike = [k for k, v in fields[0].items() if len({f[k].shape[1:] for f in fields}) == 1]
    return {
        k: jnp.concatenate([f[k] for f in fields]) if fields[0][k].ndim else fields[0][k]
        for k in alike
    }


def _with_moved_references(
    algorithm: Algorithm, new: TrainState, old: TrainState, hyper: dict[str, Any]
) -> TrainState:
    """`new` with the references that are due to move moved."""
    last = old.last
    if last is not None and algorithm.last == "half_step":
        new = _extragradient(new, old, hyper["half_step"])
        last = new.last
    if last is not None and algorithm.last == "policy":
        last = _synchronized(new, last, hyper["last_sync_steps"], hyper["last_mixup_alpha"])
    if old.ref is None:
        return replace(new, last=last)
    # before the reference moves: `last` is where it stood an iteration ago
    if last is not None and algorithm.last == "reference":
        due = new.step % hyper["ref_sync_steps"] == 0
        last = jax.tree.map(lambda a, b: jnp.where(due, a, b), old.ref, last)
    ref = _synchronized(new, old.ref, hyper["ref_sync_steps"], hyper["ref_mixup_alpha"])
    return replace(new, ref=ref, last=last)


def _synchronized(new: TrainState, model: PyTree, every: int, alpha: float) -> PyTree:
    """alpha * policy + (1 - alpha) * model if the step is a multiple of `every`, else model."""
    due = new.step % every == 0

    def move(policy: Array, x: Array) -> Array:
        return jnp.where(due, alpha * policy + (1 - alpha) * x, x)

    return jax.tree.map(move, policy_of(new.params), model)


def _extragradient(new: TrainState, old: TrainState, half_step: float) -> TrainState:
    """The first of two steps: `last` moves, policy and optimizer state stay; the second: both are
    as updated, and `last` is the policy.
    """
    first = old.step % 2 == 0

    def ahead(a: Array, b: Array) -> Array:
        return jnp.where(first, a + half_step * (b - a), b)

    # nothing needs to be restored: the optimizer's first update is only looked at
    stay = (old.params, old.opt_state)
    moved = (new.params, new.opt_state)
    params, opt_state = jax.tree.map(lambda a, b: jnp.where(first, a, b), stay, moved)
    last = jax.tree.map(ahead, policy_of(old.params), policy_of(new.params))
    return replace(new, params=params, opt_state=opt_state, last=last)


def _scalars(metrics: Arrays) -> Arrays:
    """Without the vectors of running values, which the state keeps."""
    return {name: x for name, x in metrics.items() if not x.ndim}


def _update(algorithm, optimizer, state, grads, means) -> TrainState:
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    carry = algorithm.carry.update(state.carry, means) if algorithm.carry else state.carry
    return replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        carry=carry,
        skipped_in_a_row=jnp.zeros_like(state.skipped_in_a_row),
    )
