"""Names and ids. They are plain strings at run time; the types keep one from being passed for another."""

from typing import NewType

from spillway.core.rng import Rng

RequestId = NewType("RequestId", str)
KeyId = NewType("KeyId", str)
TokenId = NewType("TokenId", str)
OrganizationId = NewType("OrganizationId", str)
TenantId = NewType("TenantId", str)
ModelName = NewType("ModelName", str)
VersionName = NewType("VersionName", str)
PoolName = NewType("PoolName", str)
ClusterName = NewType("ClusterName", str)
EndpointUrl = NewType("EndpointUrl", str)
PolicyName = NewType("PolicyName", str)
FileId = NewType("FileId", str)
BatchId = NewType("BatchId", str)

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def random_word(rng: Rng, length: int) -> str:
    """`length` characters of base 32 (5 bits each), lower case, safe in URLs, headers and file names."""
    return "".join(_ALPHABET[byte & 31] for byte in rng.token_bytes(length))


class RequestIds:
    """Makes request ids that are unique among all workers: a random word of this process and a counter."""

    __slots__ = ("_count", "_prefix")

    def __init__(self, rng: Rng) -> None:
        self._prefix = f"req_{random_word(rng, 12)}"
        self._count = 0

    def next(self) -> RequestId:
        self._count += 1
        return RequestId(f"{self._prefix}{self._count:x}")
