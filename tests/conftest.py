"""Profiles of generated tests: `--fast` tries fewer examples where a test doesn't say how many."""

from hypothesis import settings

settings.register_profile("fast", max_examples=20)
