"""Speed and memory on this machine, in figures that can be compared: medians, CPU-seconds,
tokens/s, peak memory.
"""
