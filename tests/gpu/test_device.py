"""What has to hold on the device of this process: a card in `launch/gpu_check.sh`, else the CPU."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign.bench.rollouts import compute_dtype
from jalign.bench.workloads import TINY_LLAMA, random_step
from jalign.kernels.devices import platform_of
from jalign.kernels.nf4 import decode, encode, quantized_matmul
from jalign.models import hub
from jalign.rollout.sampler import Settings, sample

CUDA = platform_of(jax.devices()[0]) == "cuda"
beside_the_suite = pytest.mark.skipif(
    not CUDA and jax.device_count() > 1,
    reason="for CPUs the suite has it: rollout/test_sampler, train/test_step, test_runs",
)


def error(got, want):
    got, want = (np.asarray(x, np.float32) for x in (got, want))
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize(("kind", "coding"), [("nf4", 0.1), ("int8", 0.01)])
def test_a_product_with_coded_weights_and_its_gradient_are_those_of_the_decoded_ones(kind, coding):
    dtype, width = compute_dtype(), 512
    w = 0.02 * jax.random.normal(jax.random.key(0), (width, 384))
    x = jax.random.normal(jax.random.key(1), (96, width)).astype(dtype)
    arrays = jax.jit(encode, static_argnums=1)(w, kind)
    assert coding / 3 < error(decode(arrays), w) < coding

    def total(product):
        return lambda x: jnp.sin(product(x).astype(jnp.float32)).sum()

    value = jax.jit(lambda x: quantized_matmul(x, arrays))(x)
    gradient = jax.jit(jax.grad(total(lambda x: quantized_matmul(x, arrays))))(x)
    with jax.default_matmul_precision("float32"):
        exact, wide = decode(arrays), x.astype(jnp.float32)
        rounding = 1e-2 if dtype == jnp.bfloat16 else 1e-5
        assert error(value, wide @ exact) < rounding
        assert error(gradient, jax.grad(total(lambda x: x @ exact))(wide)) < rounding


@beside_the_suite
def test_the_sampler_reports_the_log_probs_of_a_full_forward_pass():
    dtype = compute_dtype()
    model = hub.init(TINY_LLAMA, key=jax.random.key(0), dtype=dtype, param_dtype=dtype)
    prompts = np.random.default_rng(0).integers(4, 4096, (3, 20), np.int32)
    lengths = np.array([20, 13, 5])
    settings = Settings(max_new_tokens=16, responses=2)
    samples = sample(model, prompts, lengths, jax.random.key(1), settings)
    tokens, logps = np.asarray(samples.tokens), np.asarray(samples.token_logps)
    assert (tokens[0] != tokens[1]).any()
    rows = np.zeros((6, 36), np.int32)
    starts = np.repeat(lengths, 2)
    for row, n, prompt, response in zip(
        rows, starts, np.repeat(prompts, 2, 0), tokens, strict=True
    ):
        row[: n + 16] = [*prompt[:n], *response]

    @jax.jit
    def all_logps(state, rows):
        decoder = nnx.merge(nnx.graphdef(model), state)
        hidden, _ = decoder(rows, jnp.broadcast_to(jnp.arange(36), rows.shape))
        return jax.nn.log_softmax(decoder.logits(hidden).astype(jnp.float32))

    exact = np.asarray(all_logps(nnx.state(model), rows))
    want = [[exact[i, n - 1 + j, tokens[i, j]] for j in range(16)] for i, n in enumerate(starts)]
    # two kernels of attention, each with its own rounding
    np.testing.assert_allclose(logps, want, atol=0.05 if dtype == jnp.bfloat16 else 1e-4)


@beside_the_suite
def test_a_step_takes_over_the_memory_of_its_state_and_learns():
    work = random_step("dpo", np.tile([[16, 48, 32]], (8, 1)), pairs=8)
    state, losses, used = work.state, [], []
    for _ in range(4):
        with jax.set_mesh(work.mesh):
            data = work.source(state, work.frozen)
            old = jax.tree.leaves(state.params)
            state, metrics = work.step(state, work.frozen, data)
        losses.append(float(metrics["loss"]))
        assert all(x.is_deleted() for x in old)
        used.append((jax.devices()[0].memory_stats() or {}).get("bytes_in_use", 0))
    assert losses[0] == pytest.approx(np.log(2), abs=1e-2) and losses[-1] < losses[0]
    # a state that were kept beside the new one would be 80 MB
    assert used[-1] - used[1] < 2**20


@beside_the_suite
def test_a_deterministic_run_cut_in_two_ends_bit_for_bit_where_the_whole_one_does(tmp_path):
    def train(name, steps):
        command = [sys.executable, "-m", "jalign", "train", "tiny/dpo", "--deterministic", "true"]
        command += ["--out", str(tmp_path / name), "--steps", str(steps), "--batch_size", "8"]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]

    train("whole", 4)
    train("cut", 2)
    train("cut", 4)
    leaves = []
    for name in ("whole", "cut"):
        (file,) = (tmp_path / name / "checkpoints" / "4" / "meta").glob("*.json")
        leaves.append(json.loads(file.read_text())["leaves"])
    assert leaves[0] == leaves[1] and len(leaves[0]) > 10
