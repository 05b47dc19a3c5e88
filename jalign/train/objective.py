"""The objective of a step: fields that the loss reads, divisors of the whole step, weighted
terms."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PyTree

from jalign.core import (
    NOISE,
    SCORER_HYPER,
    TWO_MODELS,
    Algorithm,
    Arrays,
    Frozen,
    Mean,
    Term,
    arrays_of,
)
from jalign.layout import Batch

# (params, base, layout, outputs, key, reference=None, **numbers) -> {output: [B, K, R]}
Apply = Callable[..., Arrays]


ROUTES = "routes"
"""Extra [B, K, R, L * k]: 1 + the expert that each response token used in each layer when it was
sampled, 0 where that is not known."""


def routes_of(batch: Batch) -> dict[str, Array]:
    """The option of `apply` that replays the routes of a batch, if it has any."""
    if ROUTES not in batch.extras:
        return {}
    # Tokens that are not scored have no slot in the layout.
    return {ROUTES: jnp.where(batch.mask[..., None], batch.extras[ROUTES], 0.0)}


class Objective(NamedTuple):
    """An algorithm with fixed hyper-parameters: what to score, and how the scores become a loss."""

    algorithm: Algorithm
    terms: tuple[Term, ...]
    inputs: tuple[str, ...]
    scorer: dict[str, Any]  # hyper-parameters that the scorer reads

    @classmethod
    def of(cls, algorithm: Algorithm, **hyper: float) -> "Objective":
        inputs = algorithm.inputs(**hyper)
        hyper = algorithm.resolve_hyper(**hyper)
        outputs = algorithm.outputs(inputs)
        read = {n for output in outputs for n in SCORER_HYPER.get(output, ())}
        scorer = {n: hyper[n] for n in sorted(read)}
        return cls(algorithm, algorithm.objective_terms(**hyper), inputs, scorer)

    def policy_fields(
        self, apply: Apply, params: PyTree, frozen: Frozen, batch: Batch, key: Array | None
    ) -> Arrays:
        """The loss's arrays that depend on the trained model (and those of the mask).

        If policy and reference are compared over the vocabulary, one pass computes both, and the
        `ref_` arrays are included.
        """
        outputs = self.algorithm.outputs(self.inputs)
        if not any(output in TWO_MODELS for output in outputs):
            options = {**self.scorer, **routes_of(batch)}
            out = apply(params, frozen.base, batch.layout, outputs, key, **options)
            return self.algorithm.format.view(_logical(out, batch), batch)
        ref_names, ref_outputs = self._of_reference(batch)
        both = (*outputs, *(f"ref_{output}" for output in ref_outputs))
        options = {"reference": frozen.ref, **self.scorer, **routes_of(batch)}
        out = apply(params, frozen.base, batch.layout, both, key, **options)
        out = _logical(out, batch)
        ref = {output: out.pop(f"ref_{output}") for output in ref_outputs}
        named = self.algorithm.format.view(jax.lax.stop_gradient(ref), batch)
        fields = {n: named[n.removeprefix("ref_")] for n in ref_names}
        return fields | self.algorithm.format.view(out, batch)

    def reference_fields(self, apply: Apply, frozen: Frozen, batch: Batch) -> Arrays:
        """The `ref_` and `last_` arrays that are not cached in the batch, by these models."""
        fields, models = {}, {"ref_": frozen.ref, "last_": frozen.last}
        if any(o in TWO_MODELS for o in self.algorithm.outputs(self.inputs)):
            del models["ref_"]  # `policy_fields` has them
        for prefix, model in models.items():
            names, outputs = self._of_reference(batch, prefix)
            # a forward pass per model that the loss reads, none for one that only samples
            if names:
                out = apply(model, frozen.base, batch.layout, outputs, None)
                out = jax.lax.stop_gradient(_logical(out, batch))
                view = self.algorithm.format.view(out, batch)
                fields |= {n: view[n.removeprefix(prefix)] for n in names}
        return fields

    def _of_reference(
        self, batch: Batch, prefix: str = "ref_"
    ) -> tuple[list[str], tuple[str, ...]]:
        """The arrays of a reference to compute, and the scorer outputs they are made from."""
        names = [n for n in self.inputs if n.startswith(prefix) and n not in batch.extras]
        return names, self.algorithm.outputs([n.removeprefix(prefix) for n in names])

    def carried(self, carry: Arrays, fields: Arrays) -> Arrays:
        """The running values that the loss reads."""
        return self.algorithm.carry.read(carry, fields) if self.algorithm.carry else {}

    def noise(self, fields: Arrays, key: Array | None) -> Arrays:
        """The noise that the loss reads, if any."""
        if NOISE not in self.inputs:
            return {}
        # Keyed by example, not by position: another cut into micro-batches draws the same noise.
        index = fields.get("index", jnp.arange(fields["present"].shape[0]))
        if key is None:
            return {NOISE: jnp.zeros(index.shape)}
        key = jax.random.fold_in(key, 0x9E37)  # apart from the keys of dropout
        return {NOISE: jax.vmap(lambda i: jax.random.gumbel(jax.random.fold_in(key, i)))(index)}

    def divisors(self, batch: Batch) -> Array:
        """The divisor of each term, [terms], for these examples; add them over micro-batches."""
        fields = batch.extras | self.algorithm.format.view({}, batch)
        return jnp.stack([weighted(*term.reduce(fields), fields)[1] for term in self.terms])

    def value(self, fields: Arrays, divisors: Array) -> tuple[Array, dict[str, Mean]]:
        """Sum over terms of weight * (weighted sum of the unreduced loss) / divisor, and
        metrics. In metrics every example counts the same, regardless of `weight`. Running values
        with ids are among them, as vectors (`Carry.means`).
        """
        total, returned = jnp.float32(0.0), []
        for term, divisor in zip(self.terms, divisors, strict=True):
            loss, named = term.loss(**{n: fields[n] for n in arrays_of(term.loss)}, **term.hyper)
            weights, plain = term.reduce(fields)
            share = Mean.of(loss, weighted(weights, plain, fields)[0]).total
            # A step without scored tokens divides 0 by this, and its update is discarded.
            total += term.weight * share / jnp.maximum(divisor, 1e-20)
            returned.append((named, weights))
        (of_loss, _), *of_aux = returned
        metrics = self.algorithm.format.metrics(fields, of_loss)
        for named, weights in of_aux:  # reported with the weights that the term is reduced with
            metrics |= {name: (x, weights) for name, x in named.items()}
        metrics = jax.lax.stop_gradient(metrics)
        means = {name: Mean.of(x, weights) for name, (x, weights) in metrics.items()}
        carry = self.algorithm.carry
        return total, means | (carry.means(of_loss, fields) if carry else {})


def weighted(weights: Array, divisor: Array, fields: Arrays) -> tuple[Array, Array]:
    """Weights and divisor of a mean in which each example counts `weight` times. Statistics that a
    loss computes over the batch itself, such as KTO's z0, are unweighted.

    Raises:
      ValueError: `weight` for sampled responses, of which an example has several.
    """
    if "weight" not in fields:
        return weights, divisor
    each = fields["weight"]
    if each.shape[0] != weights.shape[0]:
        raise ValueError("weight: sampled responses count by their advantages; they have no weight")
    each = each.reshape(-1, *[1] * (weights.ndim - 1))
    weights = jnp.where(weights > 0, weights * each, 0.0)  # an empty slot may hold NaN
    return weights, jnp.sum(weights, dtype=jnp.float32)


def _logical(out: Arrays, batch: Batch) -> Arrays:
    """Scores in the batch's own shape: padded layouts give each response a stream, [B*K, 1, R]."""
    shape = batch.mask.shape
    return {name: x.reshape(*shape, *x.shape[3:]) for name, x in out.items()}
