"""The nouns of offline work: a file, a batch, a shard of its lines under a lease, and a committed group of results.

Times are Unix seconds. A batch is a value: whoever changes it makes a new one (`states`) and puts it in the old one's place.
"""

import enum

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import BatchId, FileId, KeyId, OrganizationId, TenantId


class Purpose(enum.StrEnum):
    BATCH = "batch"
    BATCH_OUTPUT = "batch_output"
    ASSISTANTS = "assistants"
    FINE_TUNE = "fine-tune"
    VISION = "vision"
    USER_DATA = "user_data"
    EVALS = "evals"


class FileRow(msgspec.Struct, frozen=True):
    """What a tenant uploaded, or a batch wrote. Its bytes lie in the object store under `object_of`."""

    id: FileId
    tenant: TenantId
    organization: OrganizationId
    purpose: Purpose
    filename: str
    size_bytes: int
    created_at_s: Seconds
    expires_at_s: Seconds | None = None


def object_of(file: FileId) -> str:
    """Where the bytes of a file lie."""
    return f"files/{file}"


def folder_of(batch: BatchId) -> str:
    """Where the groups of a batch lie until it is over."""
    return f"batches/{batch}"


class State(enum.StrEnum):
    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class Mistake(msgspec.Struct, frozen=True):
    """What is wrong with an input file. `line` counts from 1; None: the file as a whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Sums(msgspec.Struct, frozen=True):
    """Of lines that are finished. Tokens are those of answers that were delivered, once each."""

    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_nano_usd: int = 0

    @property
    def finished(self) -> int:
        return self.completed + self.failed


class Batch(msgspec.Struct, frozen=True):
    """One job. `entered` has the time of each state that it was in; `sums` is kept here once it is over, before that it is the sum
    of its shards. `revision` grows with each change and each lease: who holds an old one can change nothing."""

    id: BatchId
    tenant: TenantId
    organization: OrganizationId
    key: KeyId  # in whose name its lines are sent
    endpoint: str
    input_file: FileId
    window: str
    window_s: Seconds
    created_at_s: Seconds
    expires_at_s: Seconds
    state: State = State.VALIDATING
    entered: dict[State, Seconds] = {}
    metadata: dict[str, str] | None = None
    output_expires_after_s: int | None = None
    total: int = 0
    sums: Sums = Sums()
    output_file: FileId | None = None
    error_file: FileId | None = None
    mistakes: tuple[Mistake, ...] = ()
    models: tuple[str, ...] = ()
    revision: int = 0


class Shard(msgspec.Struct, frozen=True):
    """Lines `first` … `first` + `lines` − 1 (from 0) of a batch's input: bytes [`offset`, `offset` + `size_bytes`) of its file."""

    number: int
    first: int
    lines: int
    offset: int
    size_bytes: int


class Lease(msgspec.Struct, frozen=True):
    """The right to work on a shard until it ends or is given on. `token` fences: a higher one exists once somebody else has it.

    `stalls`: leases in a row that ended without a committed group, this one included. `suspect`: the line that was being
    computed alone when its worker went away, `suspect_tries` times.
    """

    batch: Batch
    shard: Shard
    token: int
    stalls: int
    suspect: int | None
    suspect_tries: int


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What one request of a line is billed with. A line has one, or one for each slice of a long generation."""

    request: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_nano_usd: int = 0
    pool: str = ""
    version: str = ""
    attempts: int = 1


def item_of(line: int, part: int) -> str:
    """The name of a part, behind its batch's."""
    return f"{line}#{part}" if part else str(line)


class Result(msgspec.Struct, frozen=True, array_like=True):
    """What came of one line. `line` counts from 0 in the batch. `status` 0: nobody answered, `code` and `message` say why."""

    line: int
    custom_id: str
    status: int
    request: str  # id of the request that was answered
    body: bytes  # JSON
    code: str = ""
    message: str = ""
    model: str = ""
    parts: tuple[Part, ...] = ()

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class Group(msgspec.Struct, frozen=True):
    """Results that were committed together. `checksum`: of the object's bytes, hex."""

    shard: int
    object: str
    checksum: str
    lines: tuple[int, ...]
