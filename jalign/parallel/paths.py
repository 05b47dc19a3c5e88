"""Dotted names of pytree leaves, used by sharding rules, optimizers and checkpoints."""

from __future__ import annotations

from typing import Any

from jax.tree_util import GetAttrKey, KeyPath, keystr, tree_leaves_with_path
from jaxtyping import PyTree


def path_name(path: KeyPath) -> str:
    """`layers.attn.q.kernel` for the key path of that parameter.

    The `.value` that `nnx.State` puts below every variable is dropped. A module of that name (the
    scalar head is `model.value`) is a dictionary key and stays.
    """
    # A path of `value` alone is a field of the caller's own pytree and its only name.
    if len(path) > 1 and path[-1] == GetAttrKey("value"):
        path = path[:-1]
    return keystr(path, simple=True, separator=".")


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Dotted name -> leaf, in the order of `jax.tree.leaves`.

    None and empty containers have no leaves.

    Raises:
      ValueError: two leaves have the same name.
    """
    named = {}
    for path, leaf in tree_leaves_with_path(tree):
        name = path_name(path)
        if name in named:
            raise ValueError(f"two leaves of the tree are both called {name!r}; rename one of them")
        named[name] = leaf
    return named
