"""A small configuration that is right, for tests that make one mistake in it."""

from pathlib import Path

from spillway.config import Configuration, InvalidConfigurationError, Problem, parse

ENVIRON = {"DEMO_KEY": "sk-demo-0123456789abcdef", "HOSTED_KEY": "very-secret-hosted-key"}

GOOD = """\
gateway:
  listen: "127.0.0.1:0"
clusters:
  east: {rtt_ms: 1}
pools:
  near:
    cluster: east
    endpoints: ["http://127.0.0.1:9101"]
    model: npc-1.9m
    limit: 32
  far:
    provider: openai
    base_url: "https://example.invalid/v1/"
    api_key: "${HOSTED_KEY}"
    model: small
models:
  npc:
    tiers: [[near], [far]]
    aliases: [npc-latest]
keys:
  - {secret: "${DEMO_KEY}", tenant: demo, models: [npc-latest]}
"""


def read(text: str, environ: dict[str, str] | None = None, folder: Path | None = None) -> Configuration:
    return parse(text, ENVIRON if environ is None else environ, file="spillway.yaml", folder=folder or Path())


def problems(text: str, environ: dict[str, str] | None = None) -> tuple[Problem, ...]:
    try:
        read(text, environ)
    except InvalidConfigurationError as error:
        return error.problems
    return ()
