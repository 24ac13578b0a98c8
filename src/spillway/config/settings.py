"""The shape of the configuration file: what each key is, and its default. `docs/configuration.md` says it at length.

What belongs to a package (connections, time-outs, store, telemetry, the brain's rules) has its shape there.
"""

from typing import Annotated, Literal

import msgspec

from spillway.backends.settings import GaugeSettings, ProbeSettings
from spillway.core.clock import Seconds
from spillway.core.ids import (
    ClusterName,
    EndpointUrl,
    ModelName,
    OrganizationId,
    PolicyName,
    PoolName,
    TenantId,
    VersionName,
)
from spillway.core.priority import Priority
from spillway.core.usage import Price
from spillway.gateway.settings import GatewaySettings, ModelTimeouts, SafetyRule
from spillway.net.settings import ClientLimits, ServerLimits
from spillway.quota.ledger import LedgerTimes
from spillway.quota.rules import Quota
from spillway.traffic.fleet import Accounting, Capacity, Slo, SpillPolicy

_NAME = msgspec.Meta(pattern="^[!-~]{1,128}$", extra={"words": "a name of 1 to 128 visible ASCII characters"})
_ADDRESS = msgspec.Meta(
    pattern=r"^(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$", extra={"words": "an address HOST:PORT"}
)
_NETWORK = msgspec.Meta(
    pattern=r"^[0-9a-fA-F:.]+(/[0-9]{1,3})?$", extra={"words": "a network such as 10.0.0.0/8 or 2001:db8::/32"}
)
_SEAL = msgspec.Meta(pattern="^[0-9a-fA-F]{64}$", extra={"words": "64 hex digits"})
_TEXT = msgspec.Meta(min_length=1, max_length=4096)
_COUNT = msgspec.Meta(ge=1)

SECRET_FIELDS = frozenset(("api_key", "secret", "access_key", "secret_key", "key_secret", "proxy", "otlp_headers"))
"""Keys whose values are never shown."""


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificate chain and private key (PEM) of the public port. Paths are relative to the configuration file."""

    cert: Annotated[str, _TEXT]
    key: Annotated[str, _TEXT]


class Journal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each worker keeps what its brain was told in HOME/journal, without prompts, and stops at `max_bytes`."""

    max_bytes: Annotated[int, _COUNT] = 256 << 20


class Gateway(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gateway's own ports, processes, home directory and bounds."""

    listen: Annotated[str, _ADDRESS] = "127.0.0.1:8080"
    admin: Annotated[str, _ADDRESS] = "127.0.0.1:8081"
    admin_hosts: tuple[Annotated[str, _TEXT], ...] = ()
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    home: Annotated[str, _TEXT] = ".spillway"
    key_secret: Annotated[str, _SEAL] | None = None
    trusted_proxies: tuple[Annotated[str, _NETWORK], ...] = ()
    default_plan: Annotated[str, _NAME] | None = None
    tls: Tls | None = None
    max_body_bytes: Annotated[int, _COUNT] = 16 << 20
    expose_pools: bool = True
    drain_s: Seconds = 30.0
    limits: ServerLimits = ServerLimits()
    connections: ClientLimits = ClientLimits()
    timeouts: GatewaySettings = GatewaySettings()
    probes: ProbeSettings = ProbeSettings()
    gauges: GaugeSettings = GaugeSettings()
    journal: Journal | None = None

    def __repr__(self) -> str:
        return f"Gateway(listen={self.listen!r}, admin={self.admin!r})"  # `key_secret` is one


class Shared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where several hosts share their limits, and how often they speak of them. `url` null: this host is alone."""

    url: str | None = None
    times: LedgerTimes = LedgerTimes()

    def __repr__(self) -> str:
        return f"Shared(url={'set' if self.url else None}, times={self.times!r})"  # the address may hold a password


class Cluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """GPUs that fail and are paid for together. `rtt_ms`: round trip from here."""

    region: str = ""
    rtt_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    residency: tuple[Annotated[str, _NAME], ...] = ()


class Pool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model version on one cluster (`cluster`, `endpoints`), or one hosted provider account (`provider`, `base_url`)."""

    model: Annotated[str, _TEXT]
    version: Annotated[VersionName, _NAME] | None = None
    cluster: Annotated[ClusterName, _NAME] | None = None
    endpoints: tuple[EndpointUrl, ...] = ()
    provider: Literal["openai"] | None = None
    base_url: EndpointUrl | None = None
    api_key: Annotated[str, _TEXT] | None = None
    limit: Annotated[int, msgspec.Meta(ge=0)] | Literal["auto"] = "auto"
    capacity: Capacity | None = None
    accounting: Accounting = Accounting.EXACT
    own_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    residency: tuple[Annotated[str, _NAME], ...] = ()
    peer: bool = False
    continuation: bool = False
    price: Price = Price()
    ca_file: Annotated[str, _TEXT] | None = None
    proxy: Annotated[str, _TEXT] | None = None
    probe_path: str | None = None

    @property
    def urls(self) -> tuple[EndpointUrl, ...]:
        """Where requests go, without a slash at the end."""
        given = self.endpoints if self.base_url is None else (self.base_url,)
        return tuple(EndpointUrl(url.rstrip("/")) for url in given)

    def __repr__(self) -> str:
        return f"Pool(model={self.model!r}, urls={self.urls!r})"  # the rest may hold secrets


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A public name. `tiers` are tried in order; pools of one tier are equals. `aliases` are other names for it."""

    tiers: tuple[tuple[Annotated[PoolName, _NAME], ...], ...]
    slo: Slo = Slo()
    policy: SpillPolicy = SpillPolicy()
    timeouts: ModelTimeouts = ModelTimeouts()
    safety: SafetyRule | None = None
    aliases: tuple[Annotated[ModelName, _NAME], ...] = ()


class WorkWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a token weighs when work is shared: work tokens = input_weight · input + output_weight · output."""

    input_weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    output_weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 4.0


_WEIGHT = msgspec.Meta(gt=0, le=1000)


class Organization(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`weight`: its share among the organizations that wait. What is not given here is as the store says."""

    weight: Annotated[float, _WEIGHT] = 1.0
    plan: Annotated[str, _NAME] | None = None
    quota: Quota | None = None
    suspended: bool | None = None


class Tenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for all keys of a tenant. `weight`: its share in its organization, while it waits. `policy`: one of `policies`."""

    organization: Annotated[OrganizationId, _NAME] | None = None
    weight: Annotated[float, _WEIGHT] = 1.0
    policy: Annotated[PolicyName, _NAME] | None = None
    plan: Annotated[str, _NAME] | None = None
    quota: Quota | None = None
    suspended: bool | None = None
    safety: Literal["off", "flag", "block"] = "block"


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that is fixed here instead of in the store. `models` null: all. `priority`: the most urgent it may ask for. `policy`
    null: the tenant's. `networks`: where callers must come from; none: from anywhere."""

    secret: Annotated[str, msgspec.Meta(min_length=16, max_length=512)]
    tenant: Annotated[TenantId, _NAME]
    name: str = ""
    models: tuple[Annotated[ModelName, _NAME], ...] | None = None
    priority: Priority = Priority.INTERACTIVE
    policy: Annotated[PolicyName, _NAME] | None = None
    networks: tuple[Annotated[str, _NETWORK], ...] = ()

    def __repr__(self) -> str:
        return f"Key(tenant={self.tenant!r}, name={self.name!r})"


class PriorityRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is given replaces the priority's default."""

    ceiling: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    max_wait_s: Seconds | None = None


class Priorities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far each priority may fill a pool and how long it may wait at the gateway."""

    realtime: PriorityRule = PriorityRule()
    interactive: PriorityRule = PriorityRule()
    batch: PriorityRule = PriorityRule()


PoolKey = Annotated[PoolName, _NAME]
ClusterKey = Annotated[ClusterName, _NAME]
ModelKey = Annotated[ModelName, _NAME]
PolicyKey = Annotated[PolicyName, _NAME]
OrganizationKey = Annotated[OrganizationId, _NAME]
TenantKey = Annotated[TenantId, _NAME]
PlanKey = Annotated[str, _NAME]
