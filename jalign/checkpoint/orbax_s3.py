"""Orbax writes arrays to files and to gs://; this teaches it s3://.

Orbax 0.12 leaves all but the arrays to epath, which knows s3://, and the arrays to tensorstore,
which has a driver for it; but where it describes the place of the arrays to tensorstore it tells
only gs:// from files, and refuses s3://bucket as a path that is not absolute. The three functions
that make the difference are private; the version of Orbax is pinned, and tests/
test_object_store.py saves and restores through them.
"""

import os
from typing import Any

from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint._src.serialization import tensorstore_utils

_PREFIX = "s3://"


def install() -> None:
    """From now on checkpoints can be at s3://; doing it again changes nothing."""
    if tensorstore_utils._use_gcs_driver is _is_store:
        return
    of_gcs, normalize = gcs_utils.get_kvstore_for_gcs, tensorstore_utils._normalize_path

    def kvstore(path: str) -> dict[str, Any]:
        return _kvstore(path) if path.startswith(_PREFIX) else of_gcs(path)

    def normalized(path: str) -> str:
        if not path.startswith(_PREFIX):
            return normalize(path)
        return _PREFIX + os.path.normpath(path.removeprefix(_PREFIX))

    gcs_utils.get_kvstore_for_gcs = kvstore
    tensorstore_utils._normalize_path = normalized
    tensorstore_utils._use_gcs_driver = _is_store


def _is_store(directory: str) -> bool:
    return directory.startswith(("gs://", _PREFIX))


def _kvstore(path: str) -> dict[str, Any]:
    """tensorstore's description of a place; of AWS's variables it reads the keys alone."""
    bucket, _, key = path.removeprefix(_PREFIX).partition("/")
    spec: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": key}
    get = os.environ.get
    endpoint = get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL")
    region = get("AWS_REGION") or get("AWS_DEFAULT_REGION") or (endpoint and "us-east-1")
    if endpoint:
        spec["endpoint"] = endpoint
    if region:
        spec["aws_region"] = region
    if get("AWS_ACCESS_KEY_ID"):
        spec["aws_credentials"] = {"type": "environment"}
    return spec
