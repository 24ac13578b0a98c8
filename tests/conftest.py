"""Profiles of generated tests: `--fast` tries fewer examples where a test doesn't say how many. None is timed: the machine may be busy."""

from hypothesis import settings

settings.register_profile("usual", deadline=None)
settings.register_profile("fast", max_examples=20, deadline=None)
settings.load_profile("usual")
