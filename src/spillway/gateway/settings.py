"""Bounds and time-outs of a request's life."""

from typing import Annotated, Literal

import msgspec

from spillway.core.clock import Seconds

_Interval = Annotated[Seconds, msgspec.Meta(gt=0)]
_Bytes = Annotated[int, msgspec.Meta(ge=1)]


class ModelTimeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model has instead of the gateway's own time-outs; None: the gateway's."""

    first_content_s: _Interval | None = None
    between_chunks_s: _Interval | None = None


class SafetyRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model`: the classifier, another model of this gateway, that reads what is asked (`input`) and answered (`output`). `on_failure`: what
    holds when it fails or takes longer than `timeout_s`. Of a stream `window_chars` are held back; a check sees `context_chars` before."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    input: bool = True
    output: bool = True
    on_failure: Literal["open", "closed"] = "open"
    timeout_s: _Interval = 0.5
    window_chars: _Bytes = 160
    context_chars: _Bytes = 80


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sweep_s` is how often time-outs are looked at: a time-out may fire late by as much.

    `max_held_bytes`: a whole (not streamed) answer up to this size is held until it is complete, so that a failing
    upstream can still be replaced; a larger one is passed on as it comes.
    """

    first_content_s: _Interval = 60.0  # streamed: from dispatch to the first content
    whole_s: _Interval = 300.0  # not streamed: from dispatch to the answer; not tried again
    between_chunks_s: _Interval = 30.0  # silence of the upstream in the middle of an answer
    total_s: _Interval = 900.0  # of one attempt
    sweep_s: _Interval = 0.25
    max_held_bytes: _Bytes = 1 << 20
    max_event_bytes: _Bytes = 1 << 20  # one server-sent event
    max_error_bytes: _Bytes = 64 << 10  # of an upstream's error body; the rest is not read

    def of(self, model: ModelTimeouts) -> "GatewaySettings":
        """The settings that hold for a model."""
        return msgspec.structs.replace(
            self,
            first_content_s=model.first_content_s or self.first_content_s,
            between_chunks_s=model.between_chunks_s or self.between_chunks_s,
        )
