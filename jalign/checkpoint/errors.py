"""The error of this package."""


class CheckpointError(RuntimeError):
    """Checkpoints cannot be written, or none that was written can be read."""
