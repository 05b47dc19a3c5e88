"""Benchmarks of speed and memory on this machine: medians, CPU-seconds, tokens/s, peak memory."""
