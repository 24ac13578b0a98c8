"""Settings of the store. `config` composes them."""

from typing import Annotated

import msgspec

from spillway.core.clock import Seconds

_Interval = Annotated[Seconds, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class SpoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The spool of one worker: slices of at most `slice_records`, at most `slice_s` after the first record of a slice.

    A segment is closed at `segment_bytes` or `segment_s`. At 9/10 of `max_bytes` the spool calls itself full; at
    `max_bytes` it stops writing and keeps at most `buffer_records` in memory; what comes after that is lost and counted.
    """

    slice_records: _Count = 128
    slice_s: _Interval = 0.05
    segment_bytes: _Count = 1 << 20
    segment_s: _Interval = 1.0
    max_bytes: _Count = 256 << 20
    buffer_records: _Count = 65_536
    retry_s: _Interval = 0.25


class ObjectSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where files and results of batches lie. `url`: file:PATH, relative to the home directory, or s3://BUCKET/PREFIX; the others are
    of an S3-compatible service, and where they are not given the environment's AWS_… variables count."""

    url: str = "file:objects"
    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None

    def __repr__(self) -> str:
        return f"ObjectSettings(url={self.url!r})"  # the rest may hold secrets


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the database is, how long its rows are kept, and what workers know of its keys.

    `url`: sqlite:PATH, relative to the home directory. `busy_timeout_s`: how long a transaction waits for another
    process's lock. `keep_records_s`, `keep_hours_s`: age at which single records and hourly roll-ups are deleted.
    `look_up_s`: how long a request waits for the look-up of its key. `max_stale_s`: how long keys stay in use while the store cannot be
    read. `max_known_keys`: of one worker; the least recently used is forgotten.
    """

    url: str = "sqlite:spillway.db"
    busy_timeout_s: _Interval = 2.0
    keep_records_s: _Interval = 90 * 86_400.0
    keep_hours_s: _Interval = 3 * 366 * 86_400.0
    look_up_s: _Interval = 0.02
    max_stale_s: _Interval = 3600.0
    max_known_keys: _Count = 200_000
    spool: SpoolSettings = SpoolSettings()
    objects: ObjectSettings = ObjectSettings()
