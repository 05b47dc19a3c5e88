"""How tests compile: XLA_FLAGS of this process, and of the one-device processes that it starts."""

import os
from importlib.metadata import version

EVERYWHERE = os.environ.get("JALIGN_OPTIMIZED") == "all"
"""Whether every test compiles as users do."""

# The former code generator of loops compiles in less time (tests/train/test_step: 107 CPU-s instead
# of 153), and what it compiles runs slower, so that whole runs gain nothing. The XLA of a newer JAX
# does not have it, and ends a process that asks for it.
QUICK = "--xla_cpu_use_fusion_emitters=false"
if EVERYWHERE or not version("jax").startswith("0.10."):
    QUICK = ""
