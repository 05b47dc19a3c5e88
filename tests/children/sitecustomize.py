"""Processes that tests start find no torch, as where it is not installed: transformers would import
it, which takes each of them two seconds. (Python imports a module of this name when it starts.)
"""

import sys
from importlib.machinery import PathFinder


class WithoutTorch(PathFinder):
    """Finds every installed package but torch."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname == "torch" else super().find_spec(fullname, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTorch
