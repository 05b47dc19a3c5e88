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
CHECKED = ["losses", "advantages", "experience", "kernels", "models", "rollout"]
install_import_hook([f"jalign.{part}" for part in CHECKED], "beartype.beartype")


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Thousands of tests would keep gigabytes of them."""
    yield
    import jax

    jax.clear_caches()
