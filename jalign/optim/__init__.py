"""Optimizers, learning-rate schedules and 8-bit moments, built on optax."""
