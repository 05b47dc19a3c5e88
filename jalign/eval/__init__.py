"""Evaluate trained models on held-out data."""
