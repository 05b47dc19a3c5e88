"""Functional alignment of language models in JAX.

`from jalign import losses` is all that research code needs; it imports nothing but jax.
"""

__version__ = "0.1.0"
