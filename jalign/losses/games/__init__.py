"""Losses that seek the equilibrium of a preference game, on the policy's own samples."""
