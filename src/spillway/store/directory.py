"""The directory: answers all workers' look-ups of keys from the store, many with one statement.

At most READS statements run at a time; what is asked meanwhile waits and goes with the next, up to BATCH digests, and whoever asks for
the same key waits for the same answer. A lone look-up waits for nobody.

What a statement read may be old by the time it is answered: if the workers were told to forget something meanwhile, it is read again.
So a worker never takes in, after `Forget`, what was read before it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from spillway.core.clock import Clock
from spillway.core.errors import StoreError
from spillway.store.keyring import Entry, Forget, LookedUp
from spillway.store.rows import Identity
from spillway.store.terms import Terms

READS = 2
BATCH = 256
MAX_WAITING = 65_536  # digests; the next are unavailable at once

Answer = Callable[[LookedUp], None]
Name = TypeVar("Name")
Said = TypeVar("Said")


class Identities(Protocol):
    """The part of a KeyStore that is asked here."""

    async def identities(self, digests: Sequence[bytes]) -> list[Identity]: ...


class Directory:
    """`run` until cancelled. `ask` is answered once for each digest, in one or more parts."""

    def __init__(self, keys: Identities, terms: Terms, *, clock: Clock, log: logging.Logger) -> None:
        self._keys = keys
        self._terms = terms
        self._clock = clock
        self._log = log
        self._asked: dict[bytes, list[Answer]] = {}  # waits for a statement
        self._reading: dict[bytes, list[Answer]] = {}  # a statement runs
        self._any = asyncio.Event()
        self._forgotten = 0  # how often workers were told to forget something
        self._healthy = True

    @property
    def terms(self) -> Terms:
        return self._terms

    def ask(self, digests: Sequence[bytes], answer: Answer) -> None:
        refused: list[bytes] = []
        for digest in digests:
            waiting = self._reading.get(digest) or self._asked.get(digest)
            if waiting is not None:
                waiting.append(answer)
            elif len(self._asked) < MAX_WAITING:
                self._asked[digest] = [answer]
            else:
                refused.append(digest)
        if self._asked:
            self._any.set()
        if refused:
            answer(LookedUp(unavailable=tuple(refused)))

    def overtaken(self) -> None:
        """The workers are told to forget something: before, or in the same turn of the event loop."""
        self._forgotten += 1

    def configure(self, terms: Terms) -> Forget:
        """Another configuration holds from now on; what workers must forget because of it."""
        before, self._terms = self._terms, terms
        if before.plans != terms.plans or before.default_plan != terms.default_plan:
            return Forget(everything=True, confirms=False)
        return Forget(
            confirms=False,
            tenants=_differing(before.tenants, terms.tenants),
            organizations=_differing(before.organizations, terms.organizations),
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as readers:
            for _ in range(READS):
                readers.create_task(self._read_forever())

    async def _read_forever(self) -> None:
        while True:
            await self._any.wait()
            batch = [digest for digest, _ in zip(self._asked, range(BATCH), strict=False)]
            for digest in batch:
                self._reading[digest] = self._asked.pop(digest)
            if not self._asked:
                self._any.clear()
            if batch:
                try:
                    await self._answer(batch)
                finally:
                    for digest in batch:
                        self._reading.pop(digest, None)

    async def _answer(self, batch: list[bytes]) -> None:
        while True:
            forgotten = self._forgotten
            try:
                identities = await self._keys.identities(batch)
            except StoreError as error:
                self._note(error)
                self._give(batch, {}, available=False)
                return
            if forgotten == self._forgotten:
                break
        self._note(None)
        now_s = self._clock.wall()
        entries = {one.key.digest: self._entry(one) for one in identities if one.key.is_live(now_s)}
        self._give(batch, entries, available=True)

    def _entry(self, identity: Identity) -> Entry:
        principal = self._terms.principal(identity.key, identity.tenant, identity.organization)
        return Entry(identity.key.digest, principal, identity.key.expires_at_s)

    def _give(self, batch: list[bytes], entries: dict[bytes, Entry], *, available: bool) -> None:
        theirs: dict[Answer, list[bytes]] = {}
        for digest in batch:
            for answer in dict.fromkeys(self._reading.pop(digest)):
                theirs.setdefault(answer, []).append(digest)
        for answer, digests in theirs.items():
            if available:
                found = tuple(entries[digest] for digest in digests if digest in entries)
                answer(LookedUp(found, tuple(digest for digest in digests if digest not in entries)))
            else:
                answer(LookedUp(unavailable=tuple(digests)))

    def _note(self, error: StoreError | None) -> None:
        """Once, not for every look-up."""
        if error is not None and self._healthy:
            self._log.warning("keys that were not used lately cannot be looked up: %s", error)
        elif error is None and not self._healthy:
            self._log.info("keys can be looked up again")
        self._healthy = error is None


def _differing(before: dict[Name, Said], after: dict[Name, Said]) -> frozenset[Name]:
    return frozenset(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
