"""Groups of results as objects: encoded once, never changed, told apart by a checksum."""

from hashlib import blake2b

import msgspec

from spillway.batch.jobs import Group, Lease, Result, Sums, folder_of

_decode = msgspec.msgpack.Decoder(list[Result]).decode


def checksum_of(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def encoded(lease: Lease, number: int, results: list[Result]) -> tuple[Group, bytes]:
    """`number`: of the groups of this lease. No other lease and no other group writes to its object."""
    data = msgspec.msgpack.encode(results)
    name = f"{folder_of(lease.batch.id)}/{lease.shard.number:06d}-{lease.token:06d}-{number:06d}"
    return Group(lease.shard.number, name, checksum_of(data), tuple(result.line for result in results)), data


def decoded(group: Group, data: bytes | None) -> list[Result] | None:
    """None: the object is gone or damaged."""
    if data is None or checksum_of(data) != group.checksum:
        return None
    return _decode(data)


def sums_of(results: list[Result]) -> Sums:
    parts = [part for result in results if result.ok for part in result.parts]
    return Sums(
        completed=sum(result.ok for result in results),
        failed=sum(not result.ok for result in results),
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        cached_tokens=sum(part.cached_tokens for part in parts),
        completion_tokens=sum(part.completion_tokens for part in parts),
        cost_nano_usd=sum(part.cost_nano_usd for part in parts),
    )
