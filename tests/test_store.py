"""Where a run's files go on disk: what cannot be written is known before, what is written stays."""

import os

import pytest

from jalign import store
from jalign.run.files import is_run


def test_a_place_that_cannot_be_a_folder_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match="file is no folder"):
        store.check_writable(tmp_path / "file")
    with pytest.raises(ValueError, match=r"run cannot be made: .*file is no folder"):
        store.check_writable(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="dangling is no folder"):
        store.check_writable(tmp_path / "dangling")
    store.check_writable(tmp_path / "a" / "b" / "run")
    assert not (tmp_path / "a").exists()


def test_a_folder_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ValueError, match=r"run cannot be written to: .* write-protected"):
        store.check_writable(tmp_path / "run")


@pytest.mark.skipif(not os.statvfs("/sys").f_flag & os.ST_RDONLY, reason="/sys can be written")
def test_a_disk_that_is_read_only_is_told_from_bad_input():
    with pytest.raises(OSError, match="Read-only file system: '/sys/run'"):
        store.check_writable("/sys/run")


def test_what_a_failed_write_leaves_does_not_fill_the_disk_further(tmp_path):
    (tmp_path / "f").write_bytes(b"old")

    def half(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.write(tmp_path / "f", half)
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_bytes() == b"old"


def test_a_bucket_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials there
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ValueError, match=r"^s3://a-bucket/m cannot be read .*redentials"):
        is_run("s3://a-bucket/m")
