"""Humanline: any loss with clamped log-ratios of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign import losses
from jalign.algorithms import get, humanline, name_of
from jalign.core import arrays_of, hyper_of
from jalign.losses.humanline import humanline as of_loss
from tests._rows import draw

TEN = (
    "dpo", "cdpo", "robust_dpo", "ipo", "ipo_sum", "gpo_hinge", "apo_zero", "sppo_hard",
    "apo_zero_unpaired", "grpo",
)  # fmt: skip
LOW, HIGH = -1.5, 2.0


def by_hand(row, fields):
    """The arrays of the row's own loss, of log-ratios clipped between LOW and HIGH."""
    arrays = dict(fields)
    for name in arrays_of(row.loss):
        base = next((b for b in (f"old_{name}", f"ref_{name}") if b in arrays_of(row.loss)), None)
        if not base or name.startswith(("ref_", "old_")):
            continue
        if name in fields:
            ratio = np.clip(fields[name] - fields[base], LOW, HIGH)
            arrays |= {name: fields[base] + ratio}
            continue
        prefix = name.removesuffix("logps")
        mask, ref = fields[f"{prefix}mask"], fields[f"ref_{prefix}token_logps"]
        ratio = np.clip(fields[f"{prefix}token_logps"] - ref, LOW, HIGH)
        arrays[base] = np.where(mask, ref, 0).sum(-1)
        arrays[name] = arrays[base] + np.where(mask, ratio, 0).sum(-1)
    return {name: jnp.asarray(arrays[name]) for name in arrays_of(row.loss)}


@pytest.mark.parametrize("name", TEN)
def test_humanline_clamps_the_log_ratios_of_ten_rows(name):
    row, wrapped = get(name), get(f"humanline+{name}")
    fields = draw(wrapped)
    hyper = {n: row.hyperparameters[n] for n in hyper_of(row.loss)}
    arrays = {n: fields[n] for n in arrays_of(wrapped.loss)}
    bounds = {"log_epsilon_p": LOW, "log_epsilon_r": HIGH}
    loss, metrics = wrapped.loss(**arrays, **hyper, **bounds)
    own, own_metrics = row.loss(**by_hand(row, fields), **hyper)
    mask = fields["mask"] if loss.ndim > 1 else np.ones(loss.shape, bool)
    np.testing.assert_allclose(
        np.where(mask, loss, 0), np.where(mask, own, 0), rtol=1e-4, atol=1e-4
    )
    assert set(metrics) == set(own_metrics)
    assert name_of(wrapped) == wrapped.name and humanline(row) == wrapped

    policy = next(
        n for n in arrays if n.endswith("token_logps") and not n.startswith(("ref", "old"))
    )
    base = next(f"{x}_{policy}" for x in ("old", "ref") if f"{x}_{policy}" in arrays)
    grads = jax.grad(lambda x: wrapped.loss(**arrays | {policy: x}, **hyper, **bounds)[0].sum())
    ratio = np.asarray(fields[policy] - fields[base])
    beyond = (ratio < LOW) | (ratio > HIGH)
    g = np.asarray(grads(fields[policy]))
    assert not g[beyond].any() and (name == "grpo" or (beyond.any() and g[~beyond].any()))


def test_humanline_equals_the_authors_code():
    """HALOs' get_sequence_rewards with the bounds -1 and 1.5, in its DPO loss with beta 0.5."""
    a = lambda *x: jnp.array([x])  # noqa: E731
    x = a(-1.0, -4.0, -0.5), a(-2.0, -2.25, -0.75), a(-3.0, -1.0, -0.25), a(-1.0, -3.0, -2.5)
    masks = a(True, True, True), a(True, True, False)
    arrays = ("chosen_token_logps", "rejected_token_logps")
    names = (*arrays, *(f"ref_{n}" for n in arrays), "chosen_mask", "rejected_mask")
    loss, metrics = of_loss(losses.dpo)(**dict(zip(names, (*x, *masks), strict=True)), beta=0.5)
    np.testing.assert_allclose(metrics["chosen_rewards"], [0.5 * (1.5 - 1 - 0.25)])
    np.testing.assert_allclose(metrics["rejected_rewards"], [0.5 * (-1 + 0.75)])
    np.testing.assert_allclose(loss, [0.5759394169], rtol=1e-6)


def test_a_loss_without_log_ratios_or_of_a_batch_is_refused():
    with pytest.raises(TypeError, match="humanline clips log-ratios; simpo reads chosen_logps"):
        get("humanline+simpo")
    with pytest.raises(TypeError, match="kto depends on the other examples of the step"):
        get("humanline+kto")
    with pytest.raises(
        TypeError, match=r"dpo_list reads, have no array mask, .*: it is for rows of"
    ):
        get("humanline+dpo_list")
    with pytest.raises(ValueError, match=r"log_epsilon_p must be < 0, got 0\.5"):
        get("humanline+dpo").with_hyper(log_epsilon_p=0.5).trace()
