"""The nouns of Spillway: ids, units, the request, how it ended, what it used, and the errors. Floor 0."""
