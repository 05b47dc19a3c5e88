"""Meshes, and which parameter is split how over them."""
