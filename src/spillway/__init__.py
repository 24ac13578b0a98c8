"""Spillway: serve generative models from clusters that already stand, and spill over when they are full."""

__version__ = "0.1.0"
