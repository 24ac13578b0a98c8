"""The asyncio shell around the brain: the life of a request, from an identified caller to a settled record. Floor 4."""
