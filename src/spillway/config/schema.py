"""The JSON schema of the configuration file, for editors and for checks elsewhere."""

from typing import Any

import msgspec

from spillway.config.configuration import Configuration


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12. Values such as `${NAME}` are text to it: it cannot know what the environment holds."""
    made = msgspec.json.schema(Configuration)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Spillway configuration", **made}
