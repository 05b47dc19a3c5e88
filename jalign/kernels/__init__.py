"""Attention, gathers and the choice of kernel for a device."""
