"""Where a run's curves and texts go besides its own record: TensorBoard, wandb, trackio, MLflow."""

from jalign.log.trackers.protocol import TrackedRun, Tracker
from jalign.log.trackers.tags import tag

__all__ = ["TrackedRun", "Tracker", "tag", "tracker"]

EXTRAS = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}
"""Name of a tracker, which is also that of its extra -> the module that it needs."""


def tracker(name: str) -> Tracker:
    """The tracker of this name.

    Raises:
      ValueError: its library is not installed.
    """
    # imported here: each of these libraries takes seconds
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec(EXTRAS[name]) is None:
        raise ValueError(
            f"log.trackers: {name} needs {EXTRAS[name]}, which is not installed: "
            f"pip install 'jalign[{name}]'"
        )
    return import_module(f"jalign.log.trackers.{name}").make()
