"""Offline work: files, batches, and their durable execution. Floor 5."""
