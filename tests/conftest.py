"""Every test sees 8 CPU devices, whatever the machine has, and shapes as the signatures say."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from jaxtyping import install_import_hook

# Before anything imports them: what is imported already stays unchecked.
CHECKED = ["jalign.losses", "jalign.kernels", "jalign.models", "jalign.rollout"]
install_import_hook(CHECKED, "beartype.beartype")


def pytest_configure(config):
    config.addinivalue_line("markers", "xdist_group(name): tests that one worker runs")


def pytest_collection_modifyitems(items):
    """A file's tests run in one worker and share what its fixtures make; tiny runs share nothing
    and fill the gaps.
    """
    for item in items:
        if "tiny_run" not in item.name:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Thousands of tests would keep gigabytes of them."""
    yield
    import jax

    jax.clear_caches()
