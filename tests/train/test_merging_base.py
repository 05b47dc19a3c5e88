"""Online merging by the options of a run: `optim.merging`."""

import jax
import numpy as np
import pytest

import jalign
from jalign.checkpoint.resume import ResumeError
from jalign.config.read import ConfigError, read_config
from jalign.options import MergingConfig
from jalign.run.described import described
from jalign.run.run import Run
from jalign.train.preemption import ExitCode
from tests.tiny_run import write_model

ALPHA = 0.125
RUN = [
    *("--algorithm", "dpo", "--model.depth", "1", "--batch_size", "4", "--data.limit", "8"),
    *("--data.max_prompt_len", "16", "--data.max_response_len", "16", "--data.eval_limit", "4"),
    *("--optim.name", "sgd", "--optim.learning_rate", "0", "--optim.schedule", "constant"),
]
MERGING = ["--optim.merging.base", "embedded", "--optim.merging.density", "1"]


def params(policy):
    return jax.tree.map(np.asarray, policy.functional()[1])


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A model whose embedding is not that of its base."""
    folder = tmp_path_factory.mktemp("models") / "tuned"
    policy = jalign.load("embedded")
    table = policy.decoder.embed.weight
    table[...] = table[...] + 0.25 * np.sign(table[...])
    policy.save(folder, dtype="float32")
    return str(folder)


def fit(tuned, out, steps, *more):
    config = read_config(
        [*RUN, "--model.path", tuned, "--out", str(out), "--steps", str(steps), *more]
    )
    run = Run(config)
    assert run.fit(console=None) == ExitCode.OK
    return run.policy


@pytest.mark.parametrize("method", ["dare", "ties"])
def test_a_step_at_rate_0_moves_by_what_fine_tuning_changed(tuned, tmp_path, method, quick):
    how = [*MERGING, "--optim.merging.method", method, "--optim.merging.alpha", str(ALPHA)]
    after = params(fit(tuned, tmp_path / "run", 2, *how))
    start = params(fit(tuned, tmp_path / "plain", 1))
    base = jalign.load("embedded")
    table = np.asarray(base.decoder.embed.weight[...])
    moved = after.embed.weight[...] - start.embed.weight[...]
    np.testing.assert_allclose(moved, 2 * ALPHA * 0.25 * np.sign(table), atol=1e-5)
    # nothing else has been fine-tuned
    np.testing.assert_allclose(after.layers.attn.q.kernel[...], start.layers.attn.q.kernel[...])


def test_a_resumed_run_has_what_fine_tuning_changed_from_its_checkpoint(tuned, tmp_path, quick):
    how = [*MERGING, "--optim.merging.alpha", str(ALPHA)]
    whole = params(fit(tuned, tmp_path / "whole", 2, *how))
    fit(tuned, tmp_path / "halves", 1, *how)
    halves = params(fit(tuned, tmp_path / "halves", 2, *how))
    jax.tree.map(np.testing.assert_array_equal, whole, halves)
    with pytest.raises(ResumeError, match=r"optimizer\.merging"):
        fit(tuned, tmp_path / "halves", 3, *MERGING, "--optim.merging.alpha", "0.5")


def test_another_architecture_is_refused_with_its_first_difference(tuned, tmp_path, quick):
    other = write_model(tmp_path / "other")
    with pytest.raises(ValueError, match=r"merging.base: .*other is another architecture .*embed"):
        fit(tuned, tmp_path / "run", 1, "--optim.merging.base", str(other))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--optim.merging.method", "ties"], "base must be set"),
        ([*MERGING, "--model.path", "embedded"], "its base is model.path itself"),
        ([*MERGING, "--model.lora.rank", "4"], "does not apply to adapters"),
        ([*MERGING, "--algorithm", "bradley_terry"], "does not apply to bradley_terry"),
        ([*MERGING, "--optim.merging.alpha", "1"], r"alpha must be in \[0, 1\)"),
        ([*MERGING, "--optim.merging.density", "0"], r"density must be in \(0, 1\]"),
    ],
)
def test_merging_that_does_not_apply_is_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        read_config([*RUN, "--model.path", "other", *more])


def test_a_run_says_what_it_merges():
    config = read_config([*RUN, "--model.path", "tuned", *MERGING])
    assert config.optim.merging == MergingConfig(base="embedded", density=1.0)
    assert "merging (dare) alpha 1e-06, density 1, base embedded" in " ".join(
        line.strip() for line in described(config)
    )
