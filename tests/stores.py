"""Local servers that speak the protocols of S3 (moto) and of Google Cloud Storage."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest
from etils.epath import backend

BUCKET = "bucket"


@contextmanager
def s3() -> Iterator[str]:
    """Serve s3://, to this process and those it starts; yields a bucket's address."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server", exc_type=ImportError)
    one = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    one.start()
    host, port = one.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "name", "AWS_SECRET_ACCESS_KEY": "secret"}
    address = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    with environment(keys | address | {"AWS_EC2_METADATA_DISABLED": "true"}):
        import s3fs

        s3fs.S3FileSystem(skip_instance_cache=True).makedirs(BUCKET, exist_ok=True)
        yield f"s3://{BUCKET}"
    one.stop()


@contextmanager
def gs() -> Iterator[str]:
    """Serve gs://, to this process and those it starts; yields a bucket's address."""
    pytest.importorskip("gcsfs")
    server = pytest.importorskip("gcp_storage_emulator.server", exc_type=ImportError)
    one = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    one.start()
    address = f"http://127.0.0.1:{one._api._httpd.server_port}"
    names = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")
    # else gcsfs asks Google what kind of bucket it is
    plain = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    with environment(dict.fromkeys(names, address) | plain):
        yield f"gs://{BUCKET}"
    one.stop()


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    forget_clients()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        forget_clients()


def forget_clients() -> None:
    """Those of before would go on asking a server that is gone."""
    backend.fsspec_backend._get_filesystem.cache_clear()
    for name in ("s3fs", "gcsfs"):
        if name in sys.modules:
            fsspec.get_filesystem_class(name.removesuffix("fs")).clear_instance_cache()
