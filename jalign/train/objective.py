"""From scored tokens to one number: the fields a loss reads, the divisors of the whole step,
the weighted terms.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jalign.core import Algorithm, Arrays, Batch, Frozen, Mean, Term, arrays_of

Apply = Callable[..., Arrays]  # (params, base, layout, outputs, key) -> {output: [B, K, R]}


class Objective(NamedTuple):
    """An algorithm with its numbers fixed: what to score, and how the scores become a loss."""

    algorithm: Algorithm
    terms: tuple[Term, ...]
    inputs: tuple[str, ...]

    @classmethod
    def of(cls, algorithm: Algorithm, **hyper: Any) -> "Objective":
        return cls(algorithm, algorithm.terms(**hyper), algorithm.inputs(**hyper))

    def policy_fields(
        self, apply: Apply, params: Any, base: Any, batch: Batch, key: Array
    ) -> Arrays:
        """The arrays of the loss that the trained model determines (and those of the mask)."""
        names = [n for n in self.inputs if n in self.algorithm.format.reads]
        out = apply(params, base, batch.layout, self.algorithm.outputs(names), key)
        return self.algorithm.format.view(_logical(out, batch), batch)

    def reference_fields(self, apply: Apply, frozen: Frozen, batch: Batch) -> Arrays:
        """The `ref_` arrays, from the batch where they are cached, from the frozen model
        otherwise.
        """
        names = [n for n in self.inputs if n.startswith("ref_") and n not in batch.extras]
        if not names:
            return {}
        outputs = self.algorithm.outputs([n.removeprefix("ref_") for n in names])
        out = apply(frozen.ref, frozen.base, batch.layout, outputs, None)
        out = jax.lax.stop_gradient(_logical(out, batch))
        view = self.algorithm.format.view(out, batch)
        return {n: view[n.removeprefix("ref_")] for n in names}

    def divisors(self, batch: Batch) -> Array:
        """What each term is divided by, [terms], for these examples; add them over
        micro-batches.
        """
        fields = self.algorithm.format.view({}, batch) | batch.extras
        return jnp.stack([term.reduce(fields)[1] for term in self.terms])

    def value(self, fields: Arrays, divisors: Array) -> tuple[Array, dict[str, Mean]]:
        """Sum over terms of weight * (weighted sum of the unreduced loss) / divisor, and
        metrics.
        """
        total, metrics = jnp.float32(0.0), {}
        for term, divisor in zip(self.terms, divisors, strict=True):
            loss, named = term.fn(**{n: fields[n] for n in arrays_of(term.fn)}, **term.numbers)
            weights, _ = term.reduce(fields)
            total += term.weight * Mean.of(loss, weights).total / jnp.maximum(divisor, 1e-20)
            if term is self.terms[0]:
                metrics |= self.algorithm.format.metrics(fields, named)
            else:  # a term is reported with the weights it is reduced with
                metrics |= {name: (x, weights) for name, x in named.items()}
        metrics = jax.lax.stop_gradient(metrics)
        return total, {name: Mean.of(x, weights) for name, (x, weights) in metrics.items()}


def _logical(out: Arrays, batch: Batch) -> Arrays:
    """Scores in the batch's own shape: padded layouts give each response a stream, [B*K, 1, R]."""
    return {name: x.reshape(batch.mask.shape) for name, x in out.items()}
