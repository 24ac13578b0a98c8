"""Settings of the store. `config` composes them."""

import msgspec

from spillway.core.clock import Seconds


class SpoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The spool of one worker: slices of at most `slice_records`, at most `slice_s` after the first record of a slice.

    A segment is closed at `segment_bytes` or `segment_s`. At 9/10 of `max_bytes` the spool calls itself full; at
    `max_bytes` it stops writing and keeps at most `buffer_records` in memory; what comes after that is lost and counted.
    """

    slice_records: int = 128
    slice_s: Seconds = 0.05
    segment_bytes: int = 1 << 20
    segment_s: Seconds = 1.0
    max_bytes: int = 256 << 20
    buffer_records: int = 65_536
    retry_s: Seconds = 0.25


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the database is, and how long its rows are kept.

    `url`: sqlite:PATH, relative to the home directory. `busy_timeout_s`: how long a transaction waits for another
    process's lock. `keep_records_s`, `keep_hours_s`: age at which single records and hourly roll-ups are deleted.
    """

    url: str = "sqlite:spillway.db"
    busy_timeout_s: Seconds = 2.0
    keep_records_s: Seconds = 90 * 86_400.0
    keep_hours_s: Seconds = 3 * 366 * 86_400.0
    spool: SpoolSettings = SpoolSettings()
