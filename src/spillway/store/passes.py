"""What batch workers show to gateways in the place of keys. A key that was rotated is followed to the one that took its place."""

from collections.abc import Callable

from spillway.core.clock import Clock, Seconds
from spillway.core.ids import KeyId
from spillway.store.minting import pass_of
from spillway.store.ports import KeyStore
from spillway.store.rows import KeyRow

LOOK_S = 5.0  # how long it is remembered what a key is; a gateway knows of its end sooner
MOST_KNOWN = 4096
MOST_ROTATIONS = 16


class Passes:
    """`await passes(key)`: None where the key, and what took its place, has ended. StoreError. `fixed`: ids of the configuration's keys."""

    def __init__(self, keys: KeyStore, fixed: Callable[[], frozenset[KeyId]], seal: bytes, clock: Clock) -> None:
        self._keys = keys
        self._fixed = fixed
        self._seal = seal
        self._clock = clock
        self._known: dict[KeyId, tuple[Seconds, bytes | None]] = {}

    async def __call__(self, key: KeyId) -> bytes | None:
        now = self._clock.monotonic()
        known = self._known.get(key)
        if known is not None and now - known[0] < LOOK_S:
            return known[1]
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        found = await self._found(key)
        self._known[key] = (now, found)
        return found

    async def _found(self, key: KeyId) -> bytes | None:
        if key in self._fixed():
            return pass_of(key.encode(), self._seal)
        row = await self._live(key)
        return None if row is None else pass_of(row.digest.hex().encode(), self._seal)

    async def _live(self, key: KeyId) -> KeyRow | None:
        wanted: KeyId | None = key
        for _ in range(MOST_ROTATIONS):
            row = None if wanted is None else await self._keys.row(wanted)
            if row is None or row.is_live(self._clock.wall()):
                return row
            wanted = row.successor
        return None
