"""Checkpoints of a run: writing, verifying, and deciding whether to resume."""
