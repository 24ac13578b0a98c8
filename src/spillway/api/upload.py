"""A file as a form brings it (`multipart/form-data`): its bytes are passed on as they come, the other fields are kept."""

from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from spillway.batch.ports import ObjectWriter
from spillway.core.errors import BadRequestError

MOST_FIELDS = 32
MOST_FIELD_BYTES = 4096
MOST_NAME_CHARS = 512


class TooLargeError(BadRequestError):
    """The file is larger than one may be."""


class Upload:
    """`await take(pieces, writer)`, then `fields`, `filename` (None: there was no file) and `size_bytes`. BadRequestError."""

    def __init__(self, content_type: str, *, most_bytes: int) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise BadRequestError("The body must be multipart/form-data with a boundary.")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size_bytes = 0
        self._most_bytes = most_bytes
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._complete = False
        try:
            self._parser = MultipartParser(boundary, {
                "on_part_begin": self._headers.clear, "on_header_field": self._on_name, "on_header_value": self._on_value,
                "on_header_end": self._on_header, "on_headers_finished": self._on_headers, "on_part_data": self._on_data,
                "on_part_end": self._on_end, "on_end": self._on_complete,
            })  # fmt: skip
        except FormParserError as error:
            raise BadRequestError(f"The form cannot be read: {error}") from error

    async def take(self, pieces: AsyncIterator[bytes], writer: ObjectWriter) -> None:
        async for piece in pieces:
            try:
                self._parser.write(piece)
            except FormParserError as error:
                raise BadRequestError(f"The form cannot be read: {error}") from error
            for part in self._pieces:
                await writer.write(part)
            self._pieces.clear()
        if not self._complete:
            raise BadRequestError("The form ends in the middle.")

    # called by the parser

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _on_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode(errors="replace")[:MOST_NAME_CHARS]
        filename = options.get(b"filename")
        self._is_file = self._name == "file"
        if self._is_file:
            if self.filename is not None:
                raise BadRequestError("There is more than one file in the form.", param="file")
            self.filename = (filename or b"file").decode(errors="replace")[:MOST_NAME_CHARS]
        elif len(self.fields) >= MOST_FIELDS:
            raise BadRequestError("There are too many fields in the form.")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._value.extend(data[start:end])
            if len(self._value) > MOST_FIELD_BYTES:
                raise BadRequestError(f"The field {self._name} is too long.", param=self._name)
            return
        self.size_bytes += end - start
        if self.size_bytes > self._most_bytes:
            raise TooLargeError(f"A file may have at most {self._most_bytes} bytes.", param="file")
        self._pieces.append(bytes(data[start:end]))

    def _on_end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = bytes(self._value).decode(errors="replace")
        self._value.clear()

    def _on_complete(self) -> None:
        self._complete = True
