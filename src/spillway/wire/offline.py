"""Bodies of `/v1/files` and `/v1/batches`, as the OpenAI contract has them. Times are Unix seconds, whole."""

from typing import Annotated, Literal

import msgspec

_encode = msgspec.json.Encoder().encode


class FileBody(msgspec.Struct):
    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    expires_at: int | None = None
    object: str = "file"
    status: str = "processed"
    status_details: str | None = None


class DeletedBody(msgspec.Struct):
    id: str
    object: str = "file"
    deleted: bool = True


class ListBody(msgspec.Struct):
    data: list["FileBody"] | list["BatchBody"]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


class Expiry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds after the file was made: an hour to thirty days."""

    seconds: Annotated[int, msgspec.Meta(ge=3600, le=2_592_000)]
    anchor: Literal["created_at"] = "created_at"


class NewBatch(msgspec.Struct, frozen=True):
    input_file_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    endpoint: str
    completion_window: str
    metadata: (
        Annotated[
            dict[Annotated[str, msgspec.Meta(max_length=64)], Annotated[str, msgspec.Meta(max_length=512)]],
            msgspec.Meta(max_length=16),
        ]
        | None
    ) = None
    output_expires_after: Expiry | None = None


class ErrorBody(msgspec.Struct):
    code: str
    message: str
    param: str | None
    line: int | None


class ErrorsBody(msgspec.Struct):
    data: list[ErrorBody]
    object: str = "list"


class CountsBody(msgspec.Struct):
    total: int
    completed: int
    failed: int


class InputDetails(msgspec.Struct):
    cached_tokens: int


class OutputDetails(msgspec.Struct):
    reasoning_tokens: int = 0


class UsageBody(msgspec.Struct):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class BatchBody(msgspec.Struct):
    id: str
    endpoint: str
    model: str | None
    errors: ErrorsBody | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: CountsBody
    usage: UsageBody
    metadata: dict[str, str] | None
    cost_usd: float  # ours: of what is finished
    object: str = "batch"


def written(body: FileBody | DeletedBody | ListBody | BatchBody) -> bytes:
    return _encode(body)


def listed(rows: list[FileBody] | list[BatchBody], *, has_more: bool) -> ListBody:
    return ListBody(rows, rows[0].id if rows else None, rows[-1].id if rows else None, has_more)
