"""What the parent and a worker tell each other over their channel."""

import msgspec

from spillway.app.desk import Done, Wanted
from spillway.config import Configuration
from spillway.core.clock import Seconds
from spillway.quota import ledger as quota
from spillway.quota.ledger import Failed, Reply
from spillway.store.keyring import Forget, LookedUp, LookUp
from spillway.telemetry.metrics import Report
from spillway.traffic.events import DrainSet, LimitSet, Scraped
from spillway.traffic.snapshot import Snapshot

# Parent to worker


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first message: everything a worker needs to serve. `seal`: what digests of keys are made with. `host`: a name of this
    parent's life that no other has."""

    configuration: Configuration
    home: str
    member: int
    members: int
    seal: bytes
    host: str


class Reconfigure(msgspec.Struct, frozen=True, tag=True):
    configuration: Configuration


class Operate(msgspec.Struct, frozen=True, tag=True):
    """An operator's hand on the brain."""

    event: LimitSet | DrainSet


class Gauged(msgspec.Struct, frozen=True, tag=True):
    """What an engine said of itself; `foreign` is this worker's part."""

    event: Scraped


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Finish what runs, take nothing new, then exit."""

    within_s: Seconds


ToWorker = Begin | Reconfigure | LookedUp | Forget | Operate | Gauged | Reply | Failed | Done | Drain

# Worker to parent


class Serving(msgspec.Struct, frozen=True, tag=True):
    """Accepting connections."""


class Told(msgspec.Struct, frozen=True, tag=True):
    """Metrics and the brain's view of itself; also the last message of a worker that drained."""

    report: Report
    snapshot: Snapshot


class SegmentClosed(msgspec.Struct, frozen=True, tag=True):
    """A spool segment is complete and may be taken in."""

    name: str


FromWorker = Serving | Told | SegmentClosed | LookUp | Wanted | quota.Report
