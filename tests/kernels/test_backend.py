"""The choice of a kernel: what each device gets, and what cannot be asked of it."""

import jax.numpy as jnp
import pytest

from jalign.kernels.backend import choose_attention, describe

HALF, FULL = jnp.bfloat16, jnp.float32


@pytest.mark.parametrize(
    ("name", "platform", "dtype", "head_dim", "softcap", "capability"),
    [
        ("blocked", "cpu", FULL, 48, None, None),
        ("splash", "tpu", HALF, 64, 30.0, None),
        ("cudnn", "cuda", HALF, 128, None, "9.0"),
        ("cudnn", "gpu", HALF, 256, None, (9, 0)),
        ("xla", "cuda", HALF, 256, None, "8.9"),
        ("xla", "cuda", HALF, 100, None, "9.0"),
        ("xla", "cuda", FULL, 128, None, "9.0"),
        ("xla", "cuda", HALF, 128, 50.0, "9.0"),
        ("xla", "cuda", HALF, 64, None, "7.5"),
        ("xla", "rocm", HALF, 128, None, None),
    ],
)
def test_each_device_gets_the_fastest_kernel_that_runs_there(
    name, platform, dtype, head_dim, softcap, capability
):
    chosen, reason = choose_attention(
        platform, dtype, head_dim, softcap, compute_capability=capability, device_kind="X1"
    )
    assert chosen == name and "X1" in reason


def test_the_reason_says_why_cudnn_was_not_taken():
    assert "not float32" in choose_attention("cuda", FULL, 64)[1]
    assert "this model's is 100" in choose_attention("cuda", HALF, 100)[1]
    assert "caps its attention logits at 50.0" in choose_attention("cuda", HALF, 64, 50.0)[1]


@pytest.mark.parametrize(
    ("requested", "platform", "dtype", "message"),
    [
        ("cudnn", "cpu", HALF, "needs CUDA, and this is cpu; blocked can"),
        ("cudnn", "cuda", FULL, "not float32; xla can"),
        ("splash", "cuda", HALF, "TPU kernel, and this is cuda; cudnn can"),
        ("flash", "cpu", FULL, "there is: xla, blocked, cudnn, splash"),
    ],
)
def test_asking_for_a_kernel_that_cannot_run_is_an_error_that_says_why(
    requested, platform, dtype, message
):
    with pytest.raises(ValueError, match=message):
        choose_attention(platform, dtype, 64, requested=requested)


def test_asking_for_a_kernel_that_can_run_gets_it():
    assert choose_attention("cuda", FULL, 64, requested="xla")[0] == "xla"


def test_the_report_names_devices_kernel_and_reason():
    lines = describe(dtype=jnp.float32, head_dim=64)
    assert "8 x" in lines[0] and "blocked" in "\n".join(lines)
