"""Where a load run sends its requests, as whom, and the bytes of each request."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

import msgspec
import numpy as np

from spillway.core.errors import UsageError
from spillway.load.corpus import Corpus, Yardstick
from spillway.load.sizes import Size

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*[^\r\n\0]*")
_OWN_FIELDS = frozenset(
    {"model", "messages", "prompt", "max_tokens", "stream", "stream_options", "ignore_eos", "prompt_cache_key"}
)
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "content-type", "connection"})


class Target(msgspec.Struct, frozen=True):
    """`base_path` has no slash at its end and includes `/v1`."""

    host: str
    port: int
    tls: bool
    base_path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def parse_target(url: str) -> Target:
    """Reads `http://host:port`, with or without `/v1` at its end. Raises UsageError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--url {url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or " " in url:
        raise UsageError(f"--url {url!r} is not of the form http://host:port")
    path = parts.path.rstrip("/")
    base_path = path if path.endswith("/v1") else f"{path}/v1"
    return Target(parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.scheme == "https", base_path)


class Credential(msgspec.Struct, frozen=True):
    """A client of the run. `label` stands in logs and reports, the key never does."""

    label: str
    key: str | None = None
    weight: float = 1.0


def read_credentials(lines: Iterable[str]) -> list[Credential]:
    """One client a line: `KEY`, `LABEL KEY` or `LABEL KEY WEIGHT`; empty lines and lines that begin with # are skipped.
    A client gets a share of the requests in proportion to its weight. Raises UsageError."""
    clients: list[Credential] = []
    for number, line in enumerate(lines, 1):
        match line.split():
            case []:
                continue
            case [first, *_] if first.startswith("#"):
                continue
            case [key]:
                clients.append(Credential(f"client-{len(clients) + 1}", key))
            case [label, key]:
                clients.append(Credential(label, key))
            case [label, key, weight] if _is_weight(weight):
                clients.append(Credential(label, key, float(weight)))
            case _:
                raise UsageError(f"--keys-file line {number}: not KEY, LABEL KEY or LABEL KEY WEIGHT")
    if not clients:
        raise UsageError("--keys-file: no key in it")
    label, count = Counter(client.label for client in clients).most_common(1)[0]
    if count > 1:
        raise UsageError(f"--keys-file: {count} clients are called {label}")
    return clients


class Shape(msgspec.Struct, frozen=True):
    """What all requests of a run have in common. `extra` fields are added to each body, `headers` are whole header lines
    without CRLF. `sessions`: how many different values of `prompt_cache_key` are drawn from; 0: the field is not sent."""

    model: str
    chat: bool = True
    streamed: bool = True
    ignore_eos: bool = False
    sessions: int = 0
    extra: dict[str, msgspec.Raw] = {}
    headers: tuple[str, ...] = ()


class RequestMaker:
    """Makes requests from sizes. Raises UsageError for headers and fields that would make an illegal request."""

    __slots__ = ("_clients", "_closing", "_corpus", "_heads", "_opening", "_rng", "_sessions", "_shares", "_yardstick")

    def __init__(
        self, target: Target, shape: Shape, clients: Sequence[Credential], corpus: Corpus, rng: np.random.Generator
    ) -> None:
        _check(shape)
        self._clients = clients
        weights = np.array([client.weight for client in clients])
        self._shares = np.cumsum(weights / weights.sum())
        self._heads = {client.label: _head(target, shape, client) for client in clients}
        self._opening, self._closing = _body_ends(shape)
        self._sessions = shape.sessions
        self._corpus = corpus
        self._rng = rng
        self._yardstick = Yardstick()

    def measure_with(self, yardstick: Yardstick) -> None:
        """From now on prompts are cut by this yardstick."""
        self._yardstick = yardstick

    def client(self) -> Credential:
        """Whose request is next."""
        if len(self._clients) == 1:
            return self._clients[0]
        at = int(np.searchsorted(self._shares, self._rng.random(), side="right"))
        return self._clients[min(at, len(self._clients) - 1)]

    def request(self, client: Credential, size: Size) -> bytes:
        """Head and body."""
        chars = self._yardstick.chars(size.input_tokens)
        if size.hash_ids is None:
            prompt = self._corpus.prompt(chars)
        else:
            block_chars = max(1, round(size.block_tokens * self._yardstick.chars_per_token))
            prompt = self._corpus.blocks(size.hash_ids, block_chars, chars)
        return self.request_for(client, prompt, size.output_tokens)

    def probe(self, chars: int) -> bytes:
        """A request with a prompt of `chars` characters for one token, by the first client."""
        return self.request_for(self._clients[0], self._corpus.prompt(chars), 1)

    def request_for(self, client: Credential, prompt: str, max_tokens: int) -> bytes:
        session = b""
        if self._sessions:
            session = b',"prompt_cache_key":"session-%d"' % self._rng.integers(self._sessions)
        body = b"%b%b%b,%b%b}" % (
            self._opening,
            msgspec.json.encode(prompt),
            self._closing[0],
            b'"max_tokens":%d' % max_tokens,
            session + self._closing[1],
        )
        return b"%bcontent-length: %d\r\n\r\n%b" % (self._heads[client.label], len(body), body)


def _check(shape: Shape) -> None:
    if clash := shape.extra.keys() & _OWN_FIELDS:
        raise UsageError(f"--extra-body: {', '.join(sorted(clash))} is set by the command itself")
    for line in shape.headers:
        if not line.isascii() or not _HEADER.fullmatch(line):
            raise UsageError(f"--header {line!r} is not of the form 'name: value'")
        if line.partition(":")[0].lower() in _OWN_HEADERS:
            raise UsageError(f"--header {line!r} is set by the command itself")


def _head(target: Target, shape: Shape, client: Credential) -> bytes:
    path = f"{target.base_path}/{'chat/completions' if shape.chat else 'completions'}"
    lines = [f"POST {path} HTTP/1.1", f"host: {target.authority}", "content-type: application/json", *shape.headers]
    if client.key is not None:
        if not client.key.isascii() or not client.key.isprintable():
            raise UsageError(f"the key of {client.label} has characters that no header may have")
        lines.append(f"authorization: Bearer {client.key}")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _body_ends(shape: Shape) -> tuple[bytes, tuple[bytes, bytes]]:
    """What stands before the prompt, right after it, and after `max_tokens`."""
    model = msgspec.json.encode(shape.model)
    rest = b""
    if shape.streamed:
        rest += b',"stream":true,"stream_options":{"include_usage":true}'
    if shape.ignore_eos:
        rest += b',"ignore_eos":true'
    if shape.extra:
        rest += b"," + msgspec.json.encode(shape.extra)[1:-1]
    if shape.chat:
        return b'{"model":%b,"messages":[{"role":"user","content":' % model, (b"}]", rest)
    return b'{"model":%b,"prompt":' % model, (b"", rest)


def _is_weight(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None and float(text) > 0
