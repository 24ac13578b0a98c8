"""What must be known of a pool to send to it."""

from typing import Annotated

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, PoolName, VersionName
from spillway.core.usage import Price


class UpstreamSpec(msgspec.Struct, frozen=True):
    """One pool as its requests see it.

    `endpoints` are base URLs; a hosted provider has one, which may end in /v1. `api_key` is sent as a bearer token.
    `proxy` is the URL of an HTTP proxy for https endpoints. `probe_path` None: health is not probed.
    """

    pool: PoolName
    endpoints: tuple[EndpointUrl, ...]
    model: str
    version: VersionName
    price: Price = Price()
    api_key: str | None = None
    ca_file: str | None = None
    proxy: str | None = None
    probe_path: str | None = "/health"
    hosted: bool = False
    peer: bool = False  # another gateway: told that the request has been spilled once


class ProbeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    interval_s: Annotated[Seconds, msgspec.Meta(gt=0)] = 2.0
    timeout_s: Annotated[Seconds, msgspec.Meta(gt=0)] = 1.0


class GaugeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How engines are asked for their load. Not faster than every 2 s: it takes their time. `path` empty: they are not asked."""

    interval_s: Annotated[Seconds, msgspec.Meta(ge=2)] = 2.0
    timeout_s: Annotated[Seconds, msgspec.Meta(gt=0)] = 1.0
    path: str = "/metrics"
