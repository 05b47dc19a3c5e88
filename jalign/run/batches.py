"""Batch sources for fixed data, sharded over the mesh."""

import jax
from jax.sharding import Mesh

from jalign.data.batch_spec import BatchSpec
from jalign.data.examples import Examples
from jalign.data.pipeline import Batches
from jalign.models.spec import Spec
from jalign.options import RunOptions
from jalign.parallel.mesh import batch_shards
from jalign.run.devices import cost_of, max_tokens_for, usual_multiple
from jalign.train.source import Offline


def source_of(options: RunOptions, examples: Examples, mesh: Mesh, spec: Spec) -> Offline:
    """A source of training batches.

    Raises:
      ValueError: there are fewer examples than `batch_size`.
    """
    if options.batch_size > len(examples):
        raise ValueError(
            f"batch_size is {options.batch_size}, but there are only {len(examples)} "
            "training examples"
        )
    return Offline(
        Batches(examples, spec_of(options, examples, mesh, spec, options.batch_size)), mesh
    )


def held_source_of(options: RunOptions, examples: Examples, mesh: Mesh, spec: Spec) -> Offline:
    """A source of held-out batches; there may be fewer examples than `batch_size`."""
    size = min(options.batch_size, len(examples))
    return Offline(Batches(examples, spec_of(options, examples, mesh, spec, size)), mesh)


def spec_of(
    options: RunOptions, examples: Examples, mesh: Mesh, model_spec: Spec, batch_size: int
) -> BatchSpec:
    """How the examples are packed into bins of static shape."""
    return BatchSpec(
        batch_size=batch_size,
        layout=options.data.layout,
        streams=batch_shards(mesh),
        max_tokens=options.data.max_tokens or max_tokens_for(examples),
        multiple=usual_multiple(),
        seed=options.seed,
        group_by_length=options.data.group_by_length,
        shuffle=options.data.shuffle,
        mismatch=reads_mismatched(options),
        # every process computes the same bins and fills its own of them: nothing is exchanged
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        cost=cost_of(model_spec),
    )


def reads_mismatched(options: RunOptions) -> bool:
    """Whether the loss compares each response with the response to another prompt (KTO)."""
    # the mask of mismatched responses: whatever reads it needs them in its batches
    return "kl_present" in options.algorithm.inputs()


def steps_of(options: RunOptions, batches: Batches) -> int:
    """Optimizer steps of the run."""
    return options.steps or max(1, int(options.epochs * batches.steps_per_epoch))
