"""Benchmarks through lm_eval, with the model in this process."""
