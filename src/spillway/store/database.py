"""What the stores need of a database, whichever it is: work is done on a connection, in a thread, in a transaction.

Statements have named parameters, `:name`, and say the same to every database; what differs is in the migrations.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Value = str | int | float | bytes | None
Values = Mapping[str, Value]
Row = tuple[Any, ...]  # of the types that the statement says
NOTHING: Values = MappingProxyType({})


class Found(Protocol):
    """What a statement found."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> "Row | None": ...
    def __iter__(self) -> Iterator[Row]: ...


class Connection(Protocol):
    def execute(self, sql: str, values: Values = NOTHING, /) -> Found: ...
    def execute_rows(self, sql: str, rows: Sequence[Values], /) -> list[Row]:
        """An INSERT with one group of VALUES, for each row; all that it RETURNs. No row may meet another one of the same call."""
        ...


class Database(Protocol):
    """At most so many pieces of work wait; more are refused with StoreError, and so is one that has no answer in time. It may still
    take effect."""

    opened: int
    """Differs when it may be another database than before."""

    async def start(self, *, make: bool = True) -> None:
        """Brings the schema up to date, and makes it where there is none. Without `make` it must be there as it should be: StoreError."""
        ...

    async def read(self, work: Callable[[Connection], T]) -> T: ...
    async def write(self, work: Callable[[Connection], T], *, alone: bool = True) -> T:
        """In one transaction. `alone`: no other one that is alone runs meanwhile."""
        ...

    async def close(self) -> None: ...
