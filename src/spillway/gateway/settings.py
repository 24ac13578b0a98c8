"""Bounds and time-outs of a request's life."""

import msgspec

from spillway.core.clock import Seconds


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sweep_s` is how often time-outs are looked at: a time-out may fire late by as much.

    `max_held_bytes`: a whole (not streamed) answer up to this size is held until it is complete, so that a failing
    upstream can still be replaced; a larger one is passed on as it comes.
    """

    first_content_s: Seconds = 60.0  # streamed: from dispatch to the first content
    whole_s: Seconds = 300.0  # not streamed: from dispatch to the answer
    between_chunks_s: Seconds = 30.0  # silence of the upstream in the middle of an answer
    total_s: Seconds = 900.0  # of one attempt
    sweep_s: Seconds = 0.25
    max_held_bytes: int = 1 << 20
    max_event_bytes: int = 1 << 20  # one server-sent event
    max_error_bytes: int = 64 << 10  # of an upstream's error body; the rest is not read
