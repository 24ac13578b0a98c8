"""Settings of an engine for custom models."""

from typing import Annotated

import msgspec

from spillway.core.clock import Seconds

_Count = Annotated[int, msgspec.Meta(ge=1)]


class BatchRules(msgspec.Struct, frozen=True):
    """At most `max_batch` items are computed together, and at most `max_batch_cost` of them, the longest times their number. While a
    batch is computed the next one waits for `max_delay_s` or until it is full; beyond `in_flight` batches nothing begins. At most
    `max_waiting` items, and `max_waiting_cost`, wait. Items of one batch differ in cost by at most `spread` times. Who has waited
    `overdue_s` goes first, whatever its priority."""

    max_batch: _Count = 16
    max_batch_cost: _Count = 32_768
    max_delay_s: Annotated[Seconds, msgspec.Meta(ge=0)] = 0.005
    max_waiting: _Count = 2048
    max_waiting_cost: _Count = 4_000_000
    in_flight: _Count = 2
    spread: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    overdue_s: Annotated[Seconds, msgspec.Meta(gt=0)] = 1.0


class MicroSettings(msgspec.Struct, frozen=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    host: str
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    rules: BatchRules = BatchRules()
    max_body_bytes: _Count = 4 << 20
    max_inputs: _Count = 2048
    max_text_chars: _Count = 32_768
    drain_s: Annotated[Seconds, msgspec.Meta(ge=0)] = 30.0
