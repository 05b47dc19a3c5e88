"""Models in a bucket: s3:// and gs://, kept by local servers that speak those protocols."""

import json
from pathlib import Path

import fsspec
import jax
import numpy as np
import pytest
from flax import nnx

from jalign import bucket, embedded
from jalign.data.tokenizers import load_tokenizer
from jalign.models import hub, safetensors_ranges, streaming
from jalign.models.config_json import support_of
from jalign.parallel.mesh import make_mesh
from tests import stores

LLAMA = Path(__file__).parent / "golden" / "models" / "llama"


@pytest.fixture(scope="module", params=["s3", "gs"])
def address(request):
    with getattr(stores, request.param)() as address:
        yield address


@pytest.fixture
def upload(address, request, tmp_path, monkeypatch):
    """Folder -> its address in the bucket, of a copy for this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def put(folder, **changed):
        target = f"{address}/{request.node.originalname}"
        fs, root = fsspec.url_to_fs(target)
        files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} | changed
        for name, content in files.items():
            fs.pipe_file(f"{root}/{name}", content)
        return target

    return put


def remove(target):
    fs, path = fsspec.url_to_fs(target)
    fs.rm_file(path)


def states_equal(a, b):
    pairs = zip(jax.tree.leaves(nnx.state(a)), jax.tree.leaves(nnx.state(b)), strict=True)
    return all(np.array_equal(x, y) and x.sharding == y.sharding for x, y in pairs)


def test_a_model_is_read_in_pieces_and_every_byte_once(upload, monkeypatch):
    monkeypatch.setattr(bucket, "PIECE_BYTES", 500)
    monkeypatch.setattr(streaming, "UNIT_BYTES", 1)  # layer by layer
    ranges, read_range = [], bucket.read_range

    def counted(url, start, stop):
        ranges.append((start, stop))
        return read_range(url, start, stop)

    monkeypatch.setattr(safetensors_ranges, "read_range", counted)
    address, mesh = upload(LLAMA), make_mesh(fsdp=4, tensor=2)
    model = hub.load(address, mesh=mesh)
    assert states_equal(model, hub.load(LLAMA, mesh=mesh))
    header, *weights = sorted(ranges)
    assert header[0] == 0
    size = (LLAMA / "model.safetensors").stat().st_size
    begin = weights[0][0]
    assert [start for start, _ in weights] == [begin, *[stop for _, stop in weights[:-1]]]
    assert weights[-1][1] == size


def test_small_files_are_copied_and_copied_again_when_they_change(upload):
    small = {"generation_config.json": b"{}", "model.safetensors": b""}
    address = upload(embedded.path(), **small)
    folder = hub.find(address)
    assert load_tokenizer(address).get_vocab() == load_tokenizer(embedded.path()).get_vocab()
    assert not support_of(address).refusals
    assert (folder / "generation_config.json").read_text() == "{}"
    assert not list(folder.glob("*.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    upload(embedded.path(), **small | {"config.json": json.dumps(config | {"new": 1}).encode()})
    remove(f"{address}/generation_config.json")
    assert hub.find(address) == folder
    assert json.loads((folder / "config.json").read_text())["new"] == 1
    assert not (folder / "generation_config.json").exists()


def test_other_processes_can_read_a_copy_while_it_is_renewed(upload, monkeypatch):
    address = upload(LLAMA)
    folder = hub.find(address)
    upload(LLAMA, **{"config.json": b"{}"})
    seen, content = [], bucket._content

    def watched(url):
        seen.append(bucket.copied(folder))
        return content(url)

    monkeypatch.setattr(bucket, "_content", watched)
    hub.find(address)
    assert [copied.address for copied in seen] == [address]
    assert "model.safetensors" in seen[0].objects and "config.json" not in seen[0].objects


def test_a_copy_that_was_killed_is_made_again_even_if_the_bucket_is_as_before(upload, monkeypatch):
    """Killed after one of two files and of a removal; then the old objects come back."""
    old = {"a.json": b"1", "b.json": b"2", "c.json": b"3"}
    address = upload(LLAMA, **old)
    folder, content = hub.find(address), bucket._content
    upload(LLAMA, **old | {"a.json": b"4", "b.json": b"5"})

    def killed(url):
        if url.endswith("b.json"):
            raise KeyboardInterrupt
        return content(url)

    monkeypatch.setattr(bucket, "_content", killed)
    with pytest.raises(KeyboardInterrupt):
        hub.find(address)
    assert (folder / "a.json").read_bytes() == b"4"
    monkeypatch.setattr(bucket, "_content", content)
    upload(LLAMA, **old)
    remove(f"{address}/c.json")
    hub.find(address)
    assert {n: (folder / n).read_bytes() for n in ("a.json", "b.json")} == {
        "a.json": b"1",
        "b.json": b"2",
    }
    assert not (folder / "c.json").exists()


def test_weights_that_are_replaced_while_they_are_read_are_refused(upload, monkeypatch):
    """By others of equal size, which no range request would notice; other files may change."""
    address = upload(LLAMA)
    weights = (LLAMA / "model.safetensors").read_bytes()
    read, changed = safetensors_ranges.read_range, {"model.safetensors": weights[:-1] + b"!"}

    def replaced(url, start, stop):
        data = read(url, start, stop)
        if start:  # behind the header
            upload(LLAMA, **changed)
        return data

    monkeypatch.setattr(streaming, "THREADS", 1)
    monkeypatch.setattr(safetensors_ranges, "read_range", replaced)
    with pytest.raises(OSError, match=rf"{address} changed while .* read: model.safetensors"):
        hub.load(address)
    changed = {"README.md": b"new"}
    hub.load(upload(LLAMA))


def test_errors_name_the_object(upload):
    address = upload(LLAMA)
    file, weights = f"{address}/model.safetensors", (LLAMA / "model.safetensors").read_bytes()
    upload(LLAMA, **{"model.safetensors": weights[:-20]})
    with pytest.raises(ValueError, match=rf"{file} is truncated or damaged: the range of"):
        hub.load(address)
    upload(LLAMA, **{"model.safetensors": weights[:100]})
    with pytest.raises(ValueError, match=rf"{file} is truncated or damaged: its header"):
        hub.load(address)
    remove(file)
    with pytest.raises(ValueError, match=rf"{address} has neither model.safetensors nor"):
        hub.load(address)
    with pytest.raises(OSError, match=rf"{file} cannot be read \(\w+"):
        bucket.read_range(file, 0, 10)
    remove(f"{address}/config.json")
    with pytest.raises(ValueError, match=rf"{address} has no config.json"):
        hub.load(address)
    with pytest.raises(ValueError, match=rf"{address}/none has no objects"):
        hub.load(f"{address}/none")


def test_a_listing_in_a_strangers_folder_is_not_followed(tmp_path):
    listing = {"address": "s3://private/model", "objects": {"model.safetensors": [9, "v"]}}
    (tmp_path / ".bucket.json").write_text(json.dumps(listing))
    assert bucket.copied(tmp_path) is None
