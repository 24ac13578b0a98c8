"""Is T(b) = x + y·b true of a GPU? Times an 8B transformer's steps on the GPU that is here. Needs torch with CUDA; nothing else does.

    python benchmarks/gpu_line.py [--output FILE]

The network has the shape of Llama-3.1-8B (32 layers, hidden 4096, 32 heads of 128, 8 of them for keys and values, feed-forward
14336, vocabulary 128256) with random bf16 weights: time does not depend on their values. A pool of b requests is run as a
continuous batch: each step decodes one token for each of b sequences (a CUDA graph over a static cache), and before it as
many new prompts are prefilled as sequences ended, so that b stay in flight. With n_out tokens a request,
T(b) = n_out · mean step. Two points give the line; the others say how well it predicts.

Prints and writes JSON: the points, the line by least squares, the line by two points and its error at the others, decode
steps by batch and context (step_ms = a + b·n + c·n·context/1000), prefill by length.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nn

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, FEED, VOCABULARY = 32, 4096, 32, 8, 128, 14336, 128256
N_IN, N_OUT = 512, 128
BATCHES = (1, 2, 4, 8, 16, 32, 64, 96, 128)
TWO_POINTS = (8, 64)
CONTEXTS = (256, 1024, 2048)
PROMPTS = (128, 512, 2048, 8192)
KIND = {"dtype": torch.bfloat16, "device": "cuda"}


class Layer:
    def __init__(self) -> None:
        self.qkv = weights((HEADS + 2 * KV_HEADS) * HEAD, HIDDEN)
        self.out = weights(HIDDEN, HEADS * HEAD)
        self.gate_up = weights(2 * FEED, HIDDEN)
        self.down = weights(HIDDEN, FEED)
        self.norm = torch.ones(HIDDEN, **KIND)


def weights(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, **KIND) * 0.02


class Network:
    """`decode`: one token for each sequence, over `context` cached ones; `prefill`: one prompt."""

    def __init__(self) -> None:
        self.layers = [Layer() for _ in range(LAYERS)]
        self.embedding = weights(VOCABULARY, HIDDEN)

    def decode(self, hidden: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        """hidden: (n, HIDDEN). cache: (2, n, KV_HEADS, context, HEAD), the same memory for every layer would be read from the L2 cache:
        it is (LAYERS, 2, n, …)."""
        n = hidden.shape[0]
        for layer, kept in zip(self.layers, cache, strict=True):
            normed = nn.rms_norm(hidden, (HIDDEN,), layer.norm)
            q, k, v = (normed @ layer.qkv.T).split((HEADS * HEAD, KV_HEADS * HEAD, KV_HEADS * HEAD), dim=-1)
            kept[0, :, :, -1] = k.view(n, KV_HEADS, HEAD)
            kept[1, :, :, -1] = v.view(n, KV_HEADS, HEAD)
            # the heads that share keys are the rows of one query: what decoding kernels do
            seen = nn.scaled_dot_product_attention(q.view(n, KV_HEADS, HEADS // KV_HEADS, HEAD), kept[0], kept[1])
            hidden = hidden + seen.reshape(n, HEADS * HEAD) @ layer.out.T
            hidden = hidden + self._feed(hidden, layer)
        return (hidden @ self.embedding.T).argmax(dim=-1)

    def prefill(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: (tokens, HIDDEN), one prompt."""
        tokens = hidden.shape[0]
        for layer in self.layers:
            normed = nn.rms_norm(hidden, (HIDDEN,), layer.norm)
            q, k, v = (normed @ layer.qkv.T).split((HEADS * HEAD, KV_HEADS * HEAD, KV_HEADS * HEAD), dim=-1)
            heads = [part.view(1, tokens, -1, HEAD).transpose(1, 2) for part in (q, k, v)]
            seen = nn.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)
            hidden = hidden + seen.transpose(1, 2).reshape(tokens, HEADS * HEAD) @ layer.out.T
            hidden = hidden + self._feed(hidden, layer)
        return (hidden[-1:] @ self.embedding.T).argmax(dim=-1)

    def _feed(self, hidden: torch.Tensor, layer: Layer) -> torch.Tensor:
        gate, up = (nn.rms_norm(hidden, (HIDDEN,), layer.norm) @ layer.gate_up.T).chunk(2, dim=-1)
        return (nn.silu(gate) * up) @ layer.down.T


def graph_of(work) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def timed_ms(work, times: int) -> float:
    """Mean milliseconds of `times` runs, after two that are not counted."""
    work(), work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return 1000.0 * (time.perf_counter() - began) / times


def decode_graph(network: Network, n: int, context: int) -> torch.cuda.CUDAGraph:
    hidden = torch.randn(n, HIDDEN, **KIND)
    cache = torch.randn(LAYERS, 2, n, KV_HEADS, context, HEAD, **KIND)
    return graph_of(lambda: network.decode(hidden, cache))


def residence_s(network: Network, prefill: torch.cuda.CUDAGraph, b: int) -> float:
    """T(b) in seconds: b sequences in flight, new ones prefilled as others end."""
    decode = decode_graph(network, b, N_IN + N_OUT // 2)
    due = 0.0
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(N_OUT):
        due += b / N_OUT
        while due >= 1.0:
            prefill.replay()
            due -= 1.0
        decode.replay()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def line(batches: list[int], times_s: list[float]) -> tuple[float, float]:
    y_s, x_s = np.polyfit(batches, times_s, 1)
    return float(x_s), float(y_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    with torch.inference_mode():
        network = Network()
        prefills = {}
        for tokens in PROMPTS:
            hidden = torch.randn(tokens, HIDDEN, **KIND)
            prefills[tokens] = graph_of(lambda hidden=hidden: network.prefill(hidden))
        print("prefill captured", flush=True)
        prefill_ms = {tokens: timed_ms(graph.replay, 10) for tokens, graph in prefills.items()}
        points = {}
        for b in BATCHES:
            points[b] = residence_s(network, prefills[N_IN], b)
            torch.cuda.empty_cache()
            print(f"T({b}) = {points[b]:.3f} s", flush=True)
        steps = []
        for context in CONTEXTS:
            for n in (1, 8, 32, 64, 128):
                steps.append((n, context, timed_ms(decode_graph(network, n, context).replay, 20)))
                torch.cuda.empty_cache()
    x_s, y_s = line(list(points), list(points.values()))
    x2_s, y2_s = line(list(TWO_POINTS), [points[b] for b in TWO_POINTS])
    columns = np.array([[1.0, n, n * context / 1000.0] for n, context, _ in steps])
    a, b, c = np.linalg.lstsq(columns, np.array([ms for *_, ms in steps]), rcond=None)[0]
    result = {
        "gpu": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "shape": "Llama-3.1-8B, random bf16 weights",
        "reference": {"input_tokens": N_IN, "output_tokens": N_OUT},
        "points": [{"b": b, "t_s": round(t_s, 5)} for b, t_s in points.items()],
        "line": {"x_s": round(x_s, 5), "y_s": round(y_s, 6)},
        "line_of_two_points": {
            "points": TWO_POINTS, "x_s": round(x2_s, 5), "y_s": round(y2_s, 6),
            "error_percent": {b: round(100 * ((x2_s + y2_s * b) / t_s - 1), 2) for b, t_s in points.items()},
        },
        "step_ms": {"a": round(float(a), 4), "b_per_sequence": round(float(b), 5), "c_per_sequence_kilotoken": round(float(c), 5)},
        "steps": [{"n": n, "context": context, "ms": round(ms, 3)} for n, context, ms in steps],
        "prefill_ms": {tokens: round(ms, 2) for tokens, ms in prefill_ms.items()},
    }  # fmt: skip
    text = json.dumps(result, indent=1)
    print(text)
    if given.output:
        given.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
