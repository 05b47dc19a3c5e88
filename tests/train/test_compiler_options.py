"""In bfloat16 the policy of step 0 is its reference, also in the compiled training step."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jalign.algorithms import get
from jalign.core import Frozen
from jalign.data.batch_spec import BatchSpec
from jalign.data.examples import Example, Examples
from jalign.data.pipeline import Batches
from jalign.kernels import devices
from jalign.kernels.compiler_options import SPARSE_CORES, WHOLE_PRODUCTS, compiler_options
from jalign.models import hub
from jalign.models.functional import functional
from jalign.parallel.mesh import make_mesh
from jalign.train.source import Offline
from jalign.train.state import init_state, reference_copy
from jalign.train.step import make_train_step

GOLDEN = Path(__file__).parents[1] / "golden" / "models"


def pairs(n=6):
    draw = np.random.default_rng(2)

    def ids(low, high):
        return draw.integers(3, 80, draw.integers(low, high)).astype(np.int32)

    rows = [(ids(2, 9), (ids(10, 20), ids(10, 20))) for _ in range(n)]
    return Examples.from_list(
        Example(prompt, both, tuple(np.ones(len(r), bool) for r in both), {})
        for prompt, both in rows
    )


def test_the_first_loss_of_dpo_in_bfloat16_is_log_2():
    mesh = make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        model = hub.load(GOLDEN / "llama", mesh=mesh, dtype=jnp.bfloat16, attention="xla")
        model.unroll = False
        apply, params, base = functional(model, nnx.Param)
        batches = Batches(pairs(), BatchSpec(6, max_tokens=1024, shuffle=False))
        parts = Offline(batches, mesh)(None, None)
        row, optimizer = get("dpo"), optax.sgd(0.0)
        state = init_state(mesh, params, optimizer, row, 0)
        frozen = Frozen(base, reference_copy(params, jnp.bfloat16))
        step = jax.jit(
            make_train_step(row, apply, optimizer), compiler_options=compiler_options(jnp.bfloat16)
        )
        _, metrics = step(state, frozen, parts)
    np.testing.assert_allclose(metrics["loss"], np.log(2), atol=1e-6)
    assert float(metrics["rewards/chosen"]) == float(metrics["rewards/margins"]) == 0.0
    assert float(metrics["grad_norm"]) > 0


def test_float32_and_gpus_are_compiled_with_the_defaults(monkeypatch):
    assert compiler_options(jnp.float32) == {}
    h200 = devices.Built("cuda", "NVIDIA H200", (9, 0))
    monkeypatch.setattr(devices, "built_for", lambda: h200)
    assert compiler_options(jnp.bfloat16) == {}


@pytest.mark.parametrize(
    ("kind", "kib"), [("TPU v6 lite", "98304"), ("TPU v5", "32768"), ("TPU v5 lite", None)]
)
def test_a_tpu_gives_its_products_more_of_its_memory_where_that_pays(kind, kib, monkeypatch):
    monkeypatch.setattr(devices, "built_for", lambda: devices.Built("tpu", kind, None))
    options = compiler_options(jnp.float32)
    assert options == compiler_options(jnp.bfloat16)
    assert options.get("xla_tpu_scoped_vmem_limit_kib") == kib


def test_products_of_a_v6e_are_not_cut_by_devices_and_run_beside_collectives(monkeypatch):
    def of(kind):
        monkeypatch.setattr(devices, "built_for", lambda: devices.Built("tpu", kind, None))
        return compiler_options(jnp.bfloat16)

    of_v6e = WHOLE_PRODUCTS | SPARSE_CORES
    with jax.set_mesh(make_mesh(fsdp=8)):
        assert len(of_v6e) == 5 and of("TPU v6 lite").items() >= of_v6e.items()
        assert not of_v6e.keys() & (of("TPU v5") | of("TPU v5 lite")).keys()
    with jax.set_mesh(make_mesh(fsdp=2, expert=4)):
        assert SPARSE_CORES.keys() & of("TPU v6 lite").keys() == set()
    assert SPARSE_CORES.keys() & of("TPU v6 lite").keys() == set()  # one chip
