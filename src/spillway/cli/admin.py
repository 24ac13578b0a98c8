"""`spillway admin METHOD PATH [NAME=VALUE …]`: one operation of the admin API. `spillway admin` alone lists them.

Values are JSON where they can be read as such, else text. With GET they go into the query, else into the body.
"""

import argparse
import http.client
import json
import os
import sys
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from spillway import config
from spillway.api.admin import OPERATIONS
from spillway.cli.key import Lenient
from spillway.core.clock import Seconds
from spillway.core.errors import SpillwayError, UsageError

TOKEN = "SPILLWAY_ADMIN_TOKEN"
ANSWER_S: Seconds = 30.0
_ROOT = "/admin/v1/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", nargs="?", metavar="get|put|post|patch|delete", help="none: list the operations")
    parser.add_argument("path", nargs="?", default="", help="such as tenants/obby, or keys")
    parser.add_argument("fields", nargs="*", metavar="NAME=VALUE")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the gateway's configuration: its admin port and home"
    )
    parser.add_argument("--url", metavar="URL", help="of the admin port, instead of the configuration's")
    parser.add_argument("--idempotency-key", metavar="KEY", help="a write with this key is done once")
    parser.epilog = f"The token is that of {TOKEN}, else that of the home's admin.token."


def run(arguments: argparse.Namespace) -> int:
    if arguments.method is None:
        for op in OPERATIONS:
            print(f"{op.method.lower():7}{op.path.removeprefix(_ROOT):36}{op.summary}")
        return 0
    url, token = _place(arguments)
    fields = dict(map(_field, arguments.fields))
    status, body = _ask(url, token, arguments, fields)
    if status >= 400:
        print(f"spillway admin: {status}: {_message(body)}", file=sys.stderr)
        return 1
    if body:
        print(json.dumps(json.loads(body), indent=2, ensure_ascii=False))
    return 0


def _place(arguments: argparse.Namespace) -> tuple[str, str]:
    url, home = arguments.url or "http://127.0.0.1:8081", Path(".spillway")
    if arguments.config is not None:
        gateway = config.load(arguments.config, Lenient(os.environ)).gateway
        url, home = arguments.url or f"http://{gateway.admin}", Path(gateway.home)
    token = os.environ.get(TOKEN)
    if token is None:
        try:
            token = (home / "admin.token").read_text().strip()
        except OSError as error:
            raise UsageError(f"there is no token: set {TOKEN}, or give --config ({error.strerror})") from None
    return url, token


def _ask(url: str, token: str, arguments: argparse.Namespace, fields: dict[str, object]) -> tuple[int, bytes]:
    parts = urlsplit(url)
    method, path = arguments.method.upper(), _ROOT + quote(arguments.path.strip("/"), safe="/@:?=&,")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    if arguments.idempotency_key is not None:
        headers["idempotency-key"] = arguments.idempotency_key
    if method == "GET":
        query = urlencode(
            {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        )
        path, body = f"{path}?{query}" if query else path, None
    else:
        body = json.dumps(fields).encode()
    connection = kind(parts.netloc, timeout=ANSWER_S)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise SpillwayError(f"the admin port at {url} does not answer: {error}") from None
    finally:
        connection.close()


def _field(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{text}: expected NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "no answer of an admin port"
