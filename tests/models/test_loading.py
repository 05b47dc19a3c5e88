"""Loading at size: what is on the host and on the devices while weights are read."""

import threading
import tracemalloc

import jax
import numpy as np
import pytest
from fixtures_of_models import GOLDEN
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jalign.models import hub, safetensors_ranges, streaming
from jalign.models.quant import quantize
from jalign.parallel.axes import FSDP, TENSOR
from jalign.parallel.mesh import make_mesh
from jalign.parallel.paths import named_leaves


def arrays_of(model):
    return named_leaves(nnx.state(model))


def test_one_shard_at_a_time_is_on_the_host():
    sharding = NamedSharding(make_mesh(fsdp=8), P(None, FSDP))
    shape, shard_bytes = (4, 8 * 256, 256), 4 * 256 * 256 * 4
    whole = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    counts = []

    def read(index):
        # 4 bytes off: a device of the host could take aligned values as they are
        values = np.empty(shard_bytes // 4 + 1, np.float32)[1:].reshape(4, 256, 256)
        values[...] = whole[index]
        return values

    tracemalloc.start()
    array = streaming.by_shard(shape, sharding, read, counts.append)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts == [shard_bytes] * 8
    assert shard_bytes <= peak < 3 * shard_bytes
    np.testing.assert_array_equal(array, whole)


def test_results_come_in_order_and_few_wait(monkeypatch):
    monkeypatch.setattr(streaming, "AHEAD_BYTES", 100)
    started = []

    def job(i):
        return (lambda: started.append(i) or i), 40

    results = streaming.ahead(job(i) for i in range(6))
    for i in range(6):
        assert next(results) == i
        # 2 of 40 bytes fit into 100 beside nothing else; the third starts when one has gone
        assert max(started) <= i + 2


def test_a_failure_of_a_read_is_raised_and_ends_the_threads():
    def fail():
        raise OSError("the object is gone")

    with pytest.raises(OSError, match="is gone"):
        list(streaming.ahead([(lambda: 1, 1), (fail, 1), (lambda: 3, 1)]))
    assert not [t for t in threading.enumerate() if t.name.startswith("jalign-load")]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rows, shards", [(40, 8), (36, 4), (33, 1)])
def test_a_host_reads_every_byte_once_of_rows_that_the_mesh_does_not_divide(
    rows, shards, transposed, monkeypatch
):
    """Shards of 16 columns on a mesh of 4 by 2."""
    table = np.arange(rows * 16, dtype=np.float32).reshape(rows, 16)
    read = []

    def read_range(url, start, stop):
        read.append(stop - start)
        return table.reshape(-1).view(np.uint8)[start:stop]

    monkeypatch.setattr(safetensors_ranges, "read_range", read_range)
    tensor = safetensors_ranges.RangeSlice("s3://bucket/file", 0, table.shape, "F32")
    expected = table.T if transposed else table
    spec = P((FSDP, TENSOR), None) if transposed else P(None, (FSDP, TENSOR))
    sharding = NamedSharding(make_mesh(fsdp=4, tensor=2), spec)
    parameter = streaming.Stream(
        expected.shape,
        np.dtype(np.float32),
        0,
        sharding,
        major=int(transposed),
        read=(lambda index: tensor[index[::-1]].T) if transposed else tensor.__getitem__,
        kind=None,
        targets={"": sharding},
    )
    done = []
    [arrays] = streaming.stream([parameter], done.append)
    np.testing.assert_array_equal(arrays[""], expected)
    assert arrays[""].sharding == sharding
    assert sum(read) == sum(done) == parameter.read_bytes == table.nbytes
    assert len(read) == shards


@pytest.mark.parametrize("name, kind", [("llama", "nf4"), ("gpt_oss", "int8")])
def test_weights_are_quantized_layer_by_layer_while_they_are_read(name, kind, monkeypatch):
    mesh = make_mesh(fsdp=8)
    plain = hub.load(GOLDEN / name, mesh=mesh)
    expected = arrays_of(quantize(plain, kind))
    paths = {p.removesuffix(".parts.codes") for p in expected if p.endswith(".parts.codes")}
    matrices = {x.shape for path, x in arrays_of(plain).items() if path in paths}
    before, seen = {id(x) for x in jax.live_arrays()}, set()
    monkeypatch.setattr(streaming, "UNIT_BYTES", 1)

    def progress(done, total):
        assert 0 < done <= total
        seen.update(x.shape for x in jax.live_arrays() if id(x) not in before)

    arrays = arrays_of(hub.load(GOLDEN / name, mesh=mesh, quant=kind, progress=progress))
    assert seen & {(1, *shape[1:]) for shape in matrices}  # a layer is there
    codes = {x.shape for path, x in expected.items() if path.endswith("codes")}
    assert not seen & (matrices - codes)
    assert arrays.keys() == expected.keys()
    for path, array in arrays.items():
        np.testing.assert_allclose(array, expected[path], rtol=1e-6, err_msg=path)
    shards = arrays["layers.attn.o.kernel.parts.codes"].addressable_shards
    assert shards[0].data.size * 8 == arrays["layers.attn.o.kernel.parts.codes"].size
