"""What the load generator costs: CPU of `spillway bench` per request and per streamed token, against a server that does nothing else.

    .venv/bin/python benchmarks/load_generator.py [--seconds S]

The server is a process of its own on `spillway.net`: canned answers, one event per token. CPU is the bench process's user and
system time, without what a run of no load costs (interpreter, imports). Prints one line of JSON per scenario.
"""

import argparse
import asyncio
import json
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import uvloop

from spillway.net.ports import Exchange, Rejection, Route
from spillway.net.server import HttpServer
from spillway.net.serving import bound_port, listen
from spillway.net.settings import ServerLimits

TOKEN = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"npc","choices":'
    b'[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
)
END = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d}}\n\ndata: [DONE]\n\n'
)
WHOLE = b'{"choices":[{"message":{"content":"word"}}],"usage":{"prompt_tokens":9,"completion_tokens":1}}'
TOKEN_EVERY_S = 0.05

SCENARIOS = {
    "1000 streams, a token every 50 ms": ["--profile", "concurrent", "--rate", "1000", "--output-tokens", "60"],
    "32 connections, whole answers": ["--profile", "concurrent", "--rate", "32", "--no-stream", "--output-tokens", "1"],
    "3000 requests/s, whole answers": ["--profile", "poisson", "--rate", "3000", "--no-stream", "--output-tokens", "1"],
}


class Canned:
    """A `net` service that streams or answers at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._route = Route(self._answer, max_body_bytes=1 << 24)

    def route(self, method: bytes, path: bytes) -> Route:
        return self._route

    def rejection(self, reason: Rejection) -> tuple[int, bytes, bytes]:
        return 400, b"", b""

    def _answer(self, exchange: Exchange) -> None:
        if b'"stream":true' in exchange.body:
            found = re.search(rb'"max_tokens":(\d+)', exchange.body)
            exchange.start(200, b"content-type: text/event-stream\r\n")
            self._token(exchange, int(found[1]) if found else 1, 1)
        else:
            exchange.respond(200, b"content-type: application/json\r\n", WHOLE)

    def _token(self, exchange: Exchange, tokens: int, index: int) -> None:
        if index < tokens:
            exchange.write([TOKEN])
            self._loop.call_later(TOKEN_EVERY_S, self._token, exchange, tokens, index + 1)
        else:
            exchange.write([TOKEN, END % tokens])
            exchange.finish()


async def serve() -> None:
    listening = await listen(HttpServer(Canned(), ServerLimits()), "127.0.0.1", 0)
    print(bound_port(listening), flush=True)
    await asyncio.Event().wait()


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bench(port: str, words: list[str]) -> tuple[dict[str, float], float]:
    """The result, and the CPU seconds of the process."""
    before_s = cpu_s()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.json"
        command = [
            sys.executable,
            "-m",
            "spillway",
            "bench",
            "--url",
            f"http://127.0.0.1:{port}",
            "--chars-per-token",
            "4",
        ]
        subprocess.run([*command, "--output", str(output), *words], check=True, stdout=subprocess.DEVNULL)
        return json.loads(output.read_text()), cpu_s() - before_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve())
        return
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        _, start_s = bench(port, ["--profile", "synchronous", "--max-requests", "1"])
        for name, words in SCENARIOS.items():
            result, used_s = bench(port, [*words, "--duration", str(arguments.seconds)])
            used_s -= start_s
            tokens = result["output_tokens_per_s"] * result["duration_s"]
            line = {
                "scenario": name, "requests": result["requests"], "ok": result["ok"],
                "requests_per_s": result["throughput_rps"], "tokens_per_s": result["output_tokens_per_s"],
                "cores": round(used_s / result["duration_s"], 2), "cpu_us_per_request": round(used_s / result["requests"] * 1e6, 1),
                "cpu_us_per_token": round(used_s / tokens * 1e6, 1), "slip_ms": result["slip_ms"],
            }  # fmt: skip
            print(json.dumps(line), flush=True)
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    main()
