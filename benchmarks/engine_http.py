"""Tokens per second of one `spillway engine` over HTTP, streamed, against the number of concurrent streams.

    .venv/bin/python benchmarks/engine_http.py [--streams 1 8 32 64] [--seconds 3] [--rounds 3] [--json FILE]

Starts an unpaced engine with the bundled model and loads it from a second process over raw sockets: a client keeps one connection, sends
the next request when the last one is answered, and finds the end by its last bytes; it parses nothing else. Tokens are the engine's
own count (`vllm:generation_tokens_total`), taken before and after each window; answers have a fixed length (`ignore_eos`).
Generator and engine share the machine, as they do in tests. Beside each window the same work is done in process, without HTTP and
text, so that the figures can be compared on a machine that is shared with others; rows are medians of the rounds.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import cast

import uvloop
from msgspec import structs

from spillway.engine.model_folder import read_model_folder
from spillway.engine.pipeline import OpenvinoPipeline, OpenvinoTokenizer
from spillway.engine.ports import Sampling
from spillway.engine.prompt import Message, Prompts
from spillway.engine.settings import EngineSettings

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models/npc-1.9m/openvino"
OUTPUT_TOKENS = 128
WARM_UP_S = 1.0


class Stream(asyncio.Protocol):
    """One client: request, answer, request, …"""

    def __init__(self, request: bytes, counts: dict[str, int]) -> None:
        self._request = request
        self._counts = counts
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._counts["reads"] += 1
        self._counts["events"] += data.count(b"data: ")
        if data.endswith(b"0\r\n\r\n") and self._transport is not None:
            self._counts["answers"] += 1
            self._transport.write(self._request)


def request_bytes(port: int, number: int) -> bytes:
    body = json.dumps(
        {
            "model": "npc-1.9m",
            "stream": True,
            "ignore_eos": True,
            "max_tokens": OUTPUT_TOKENS,
            "messages": [
                {"role": "user", "content": f"Give me a quest from Mira the miner in Frostgate, number {number}."}
            ],
        }
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def read_tokens(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("vllm:generation_tokens_total"):
                return int(line.rsplit(" ", 1)[1])
    raise RuntimeError("the engine shows no count of tokens")


async def measure(port: int, streams: int, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    counts = {"reads": 0, "events": 0, "answers": 0}
    transports = [
        (await loop.create_connection(lambda n=n: Stream(request_bytes(port, n), counts), "127.0.0.1", port))[0]
        for n in range(streams)
    ]
    await asyncio.sleep(WARM_UP_S)
    tokens = await loop.run_in_executor(None, read_tokens, port)
    before, began = dict(counts), time.perf_counter()
    await asyncio.sleep(seconds)
    tokens = await loop.run_in_executor(None, read_tokens, port) - tokens
    took = time.perf_counter() - began
    for transport in transports:
        transport.abort()
    events = counts["events"] - before["events"]
    return {
        "streams": streams,
        "tokens_per_s": round(tokens / took),
        "events_per_s": round(events / took),
        "tokens_per_event": round(tokens / max(1, events), 2),
        "requests_per_s": round((counts["answers"] - before["answers"]) / took, 1),
    }


def start_engine(extra: list[str]) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "spillway", "engine", "--model", str(MODEL), "--port", "0", "--json", *extra],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    return process, int(ready["url"].rsplit(":", 1)[1])


def measure_beside(alone: "InProcess", port: int, streams: int, seconds: float, rounds: int) -> dict[str, float]:
    """Medians over the rounds, each HTTP and in process in turn."""
    served: list[dict[str, float]] = []
    in_process: list[float] = []
    for _ in range(rounds):
        served.append(uvloop.run(measure(port, streams, seconds)))
        in_process.append(alone.tokens_per_s(streams, seconds))
    row = {name: median(one[name] for one in served) for name in served[0]}
    return {**row, "in_process_tokens_per_s": round(median(in_process))}


class InProcess:
    """The pipeline alone: batches of the same width, stepped and read and nothing else."""

    def __init__(self) -> None:
        folder = read_model_folder(str(MODEL))
        settings = EngineSettings(model=str(MODEL), name="npc-1.9m")
        tokenizer = OpenvinoTokenizer(folder.path)
        prompts = Prompts(tokenizer, folder.special_tokens, folder.chat_template)
        self._prompt = prompts.chat([Message("user", "Give me a quest from Mira the miner in Frostgate, number 1.")])
        self._pipeline = OpenvinoPipeline(folder, settings, tokenizer, cache_tokens=settings.kv_cache_tokens)

    def tokens_per_s(self, streams: int, seconds: float) -> float:
        sampling = Sampling(max_tokens=OUTPUT_TOKENS, ignore_eos=True, temperature=0.7, top_p=0.95)
        running = [  # of staggered lengths, so that they do not all end, and begin, in one step
            self._pipeline.add(self._prompt, structs.replace(sampling, max_tokens=1 + i * OUTPUT_TOKENS // streams))
            for i in range(streams)
        ]
        tokens = 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            self._pipeline.step()
            for i, one in enumerate(running):
                ids, finish = one.take()
                tokens += len(ids)
                if finish is not None:
                    running[i] = self._pipeline.add(self._prompt, sampling)
        took = time.perf_counter() - began
        for one in running:
            one.cancel()
        self._pipeline.step()
        return tokens / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--engine", nargs="*", default=[], help="further arguments of the engine, without their dashes: threads=1"
    )
    parser.add_argument("--json", type=Path, help="also write the rows there")
    arguments = parser.parse_args()
    extra = [part for option in arguments.engine for part in ("--" + option.split("=")[0], option.split("=")[1])]
    process, port = start_engine(extra)
    try:
        alone = InProcess()
        rows = [
            measure_beside(alone, port, streams, arguments.seconds, arguments.rounds) for streams in arguments.streams
        ]
    finally:
        process.terminate()
        process.wait(30)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
