"""Show the data of a run as the model will read them, without loading the model."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from jalign.data.examples import Examples
from jalign.models import hub
from jalign.options import RunOptions
from jalign.run import data as build_data
from jalign.run import limits as check_tokens
from jalign.run import rollouts as build_online
from jalign.run.batches import source_of
from jalign.run.devices import mesh_of
from jalign.run.policy import model_path, tokenizer_of


def examples_with_warnings(
    options: RunOptions,
) -> tuple[Examples, Examples | None, PreTrainedTokenizerBase]:
    """(training examples, held-out examples, tokenizer); the training report has all warnings."""
    tokenizer = tokenizer_of(options)
    train, held = build_data.examples_of(options, tokenizer)
    train.report.warnings += check_tokens.check(options, tokenizer, train, held)
    return train, held, tokenizer


def split_lines(options: RunOptions) -> list[str]:
    """Lines about the splits that are read, for sources with several."""
    return build_data.described_splits(options.data)


def batch_lines(options: RunOptions, examples: Examples) -> list[str]:
    """Lines about batch shapes, or about rollouts for an online run."""
    if options.algorithm.experience:
        return list(build_online.spec_of(options).describe(options.algorithm))
    spec = hub.spec_of(model_path(options.model.path))
    source = source_of(options, examples, mesh_of(options.mesh), spec)
    return list(source.describe())
