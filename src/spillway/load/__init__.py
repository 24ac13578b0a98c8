"""Features that measure: load on a URL by profile or trace, counted from its own log of every request. Floor 5."""
