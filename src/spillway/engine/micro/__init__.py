"""Micro-batches: requests of custom models that are computed together."""
