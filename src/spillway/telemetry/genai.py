"""The names that a request's span uses: OpenTelemetry's GenAI conventions, which still change, in one table. Pure."""

from spillway.core.outcome import Outcome
from spillway.core.usage import UsageRecord

SEMCONV_VERSION = "1.44.0"

REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
ERROR_TYPE = "error.type"

Attribute = str | int | float | bool


def attributes(record: UsageRecord, overhead_s: float) -> dict[str, Attribute]:
    """What is known; a value that is not is left out. Ours begin with `spillway.`."""
    known: dict[str, Attribute | None] = {
        REQUEST_MODEL: record.model,
        RESPONSE_MODEL: record.version,
        RESPONSE_ID: record.request,
        INPUT_TOKENS: record.prompt_tokens,
        OUTPUT_TOKENS: record.completion_tokens,
        CACHED_TOKENS: record.cached_tokens,
        ERROR_TYPE: None if record.outcome is Outcome.OK else record.outcome.value,
        "spillway.tenant": record.tenant,
        "spillway.pool": record.pool,
        "spillway.priority": record.priority.value,
        "spillway.outcome": record.outcome.value,
        "spillway.attempts": record.attempts,
        "spillway.spilled": record.spilled,
        "spillway.streamed": record.streamed,
        "spillway.ttft_s": record.ttft_s,
        "spillway.tpot_s": record.tpot_s,
        "spillway.overhead_s": overhead_s,
    }
    return {name: value for name, value in known.items() if value is not None}
