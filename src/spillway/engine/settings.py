"""What can be set about an engine."""

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`spillway engine`. Over `max_sequences` a request waits; over `max_waiting` it is refused with 429."""

    model: str  # folder of an OpenVINO model
    name: str  # what clients call it
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0  # 0: any free one
    max_sequences: Count = 64
    max_waiting: Annotated[int, msgspec.Meta(ge=0)] = 256
    kv_cache_tokens: Count = 65_536
    max_batched_tokens: Count = 512  # prompt and output tokens in one step; longer prompts take several
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0  # of the inference; 0: one per core
    pace_ms: NotNegative = 0.0  # a step lasts at least pace_ms + pace_per_sequence_ms · sequences
    pace_per_sequence_ms: NotNegative = 0.0
    drain_s: NotNegative = 30.0  # how long SIGTERM waits for what runs
    max_body_bytes: Count = 4 << 20
