"""How tests compile: XLA_FLAGS of this process, and of the one-device processes that it starts."""

import os
from importlib.metadata import version

EVERYWHERE = os.environ.get("JALIGN_OPTIMIZED") == "all"
"""Whether every test compiles as users do."""

# The former code generator of loops takes 30 % less of the tests' CPU time. The XLA of a newer JAX
# does not have it, and ends a process that asks for it.
QUICK = "--xla_cpu_use_fusion_emitters=false"
if EVERYWHERE or not version("jax").startswith("0.10."):
    QUICK = ""
