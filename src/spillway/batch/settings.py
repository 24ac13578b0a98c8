"""Settings of offline work. `config` composes them."""

from typing import Annotated

import msgspec

from spillway.core.clock import Seconds

_Interval = Annotated[Seconds, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Url = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class BatchLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What tenants may ask for. Sizes in bytes. `tenant_bytes`, `tenant_batches`: of all files, and of batches that are not over."""

    file_bytes: _Count = 200_000_000
    lines: _Count = 50_000
    line_bytes: _Count = 4_000_000
    tenant_bytes: _Count = 20_000_000_000
    tenant_files: _Count = 10_000
    tenant_batches: _Count = 100


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`workers`: batch workers of this host; 0: none, batches are run by others. `gateways`: where their lines are sent; none: to
    the gateway of this host. `in_flight`: lines of one worker that are sent and not answered. `lease_s`: how long a shard stays with
    a worker that says nothing. A shard has at most `shard_lines` and `shard_bytes`; results are committed at `group_lines`, or
    `group_s` after the first. A line that fails `attempts` times, or loses its connection `losses` times, ends in the error file.
    Where all pools of a model can go on with an answer (`continuation`), longer ones come in slices of `slice_tokens`.
    """

    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1
    gateways: tuple[_Url, ...] = ()
    in_flight: _Count = 64
    poll_s: _Interval = 0.5
    lease_s: _Interval = 10.0
    shard_lines: _Count = 256
    shard_bytes: _Count = 4_000_000
    group_lines: Annotated[int, msgspec.Meta(ge=1, le=64)] = 64
    group_s: _Interval = 0.25
    attempts: _Count = 3
    losses: _Count = 20
    answer_s: _Interval = 3600.0
    slice_tokens: _Count = 256
    window_s: _Interval = 86_400.0
    keep_s: _Interval = 30 * 86_400.0
    limits: BatchLimits = BatchLimits()
