"""The public API's files and batches, as a command line uses them: one blocking connection a call."""

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from spillway.core.clock import Seconds
from spillway.core.errors import SpillwayError, UsageError

Json = dict[str, Any]
ANSWER_S: Seconds = 60.0
_PIECE_BYTES = 1 << 18
_BOUNDARY = "spillway-form"


class BatchClient:
    """`url`: of the gateway, with or without /v1. Raises SpillwayError with the gateway's words."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UsageError(f"{url}: expected http://HOST:PORT")
        self._url = url
        self._place = parts.netloc
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._headers = {"authorization": f"Bearer {key}"}

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        data = None if body is None else json.dumps(body).encode()
        return json.loads(self._ask(method, path, data, {"content-type": "application/json"}))

    def batch(self, batch: str) -> Json:
        return self.call("GET", f"/v1/batches/{batch}")

    def upload(self, path: Path, sent: Callable[[int], None]) -> Json:
        """`sent`: told how many bytes left."""
        try:
            size_bytes = path.stat().st_size
            with path.open("rb") as file:
                head = (
                    f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
                    f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="{path.name}"\r\n'
                    "content-type: application/jsonl\r\n\r\n"
                ).encode()
                tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
                headers = {
                    "content-type": f"multipart/form-data; boundary={_BOUNDARY}",
                    "content-length": str(len(head) + size_bytes + len(tail)),
                }
                return json.loads(self._ask("POST", "/v1/files", _pieces(head, file, tail, sent), headers))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from None

    def download(self, file: str, target: IO[bytes]) -> None:
        connection, answer = self._answer("GET", f"/v1/files/{file}/content", None, {})
        try:
            while piece := _read(answer, file):
                target.write(piece)
        finally:
            connection.close()

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> bytes:
        connection, answer = self._answer(method, path, body, headers)
        try:
            return answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise SpillwayError(f"the answer of {self._url} broke off: {error}") from None
        finally:
            connection.close()

    def _answer(
        self, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._kind(self._place, timeout=ANSWER_S)
        try:
            connection.request(method, path, body, self._headers | headers)
            answer = connection.getresponse()
            if answer.status >= 400:
                raise SpillwayError(f"{answer.status}: {_message(answer.read())}")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise SpillwayError(f"the gateway at {self._url} does not answer: {error}") from None
        except SpillwayError:
            connection.close()
            raise
        return connection, answer


def _pieces(head: bytes, file: IO[bytes], tail: bytes, sent: Callable[[int], None]) -> Iterator[bytes]:
    yield head
    while piece := file.read(_PIECE_BYTES):
        yield piece
        sent(len(piece))
    yield tail


def _read(answer: http.client.HTTPResponse, file: str) -> bytes:
    try:
        return answer.read(_PIECE_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise SpillwayError(f"{file} broke off: {error}") from None


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "no answer of a gateway"
