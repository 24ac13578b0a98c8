"""A BERT encoder as an OpenVINO graph, from the weights of a Hugging Face folder: no other framework is needed.

    x = norm(words + positions + types)
    each layer:  x = norm(x + W_o · attention(x)),  x = norm(x + W_2 · gelu(W_1 · x))
    embedding = normalized mean of the last x over the tokens that are there

Names and shapes as `transformers` writes them (BertModel).
"""

import sys
from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, cast

import msgspec
import numpy as np

# before the import: it starts a thread that reports to its makers, and writes into the home folder
cast("dict[str, object]", sys.modules)["openvino_telemetry"] = None

import openvino  # noqa: E402
from openvino import opset13  # noqa: E402

op: Any = opset13
Node = Any


class BertConfig(msgspec.Struct, frozen=True):
    """What is read of `config.json`."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    layer_norm_eps: float = 1e-12


def mean_encoder(config: BertConfig, weights: Mapping[str, np.ndarray]) -> openvino.Model:
    """ids [n, length] int32 and mask [n, length] float32 → embeddings [n, hidden_size] of length 1."""
    ids, mask = op.parameter([-1, -1], np.int32, name="ids"), op.parameter([-1, -1], np.float32, name="mask")
    graph = _Graph(config, weights)
    x = graph.embedded(ids)
    blocked = op.multiply(
        op.subtract(op.constant(np.float32(1)), op.unsqueeze(op.unsqueeze(mask, _axis(1)), _axis(1))),
        op.constant(np.float32(-1e4)),
    )
    for number in range(config.num_hidden_layers):
        x = graph.layer(number, x, blocked)
    wide = op.unsqueeze(mask, _axis(2))
    total = op.reduce_sum(op.multiply(x, wide), _axis(1))
    count = op.maximum(op.reduce_sum(wide, _axis(1)), op.constant(np.float32(1e-9)))
    embedding = op.normalize_l2(op.divide(total, count), _axis(1), 1e-12, "max")
    return openvino.Model([embedding], [ids, mask], "bert-mean")  # pyright: ignore[reportGeneralTypeIssues]  (its stubs differ)


class _Graph:
    def __init__(self, config: BertConfig, weights: Mapping[str, np.ndarray]) -> None:
        self._config = config
        self._weights = weights

    def embedded(self, ids: Node) -> Node:
        words = self._table("embeddings.word_embeddings.weight")
        length = op.gather(op.shape_of(ids, "i32"), op.constant(np.int32(1)), op.constant(np.int32(0)))
        places = op.range(op.constant(np.int32(0)), length, op.constant(np.int32(1)), "i32")
        positions = op.gather(self._table("embeddings.position_embeddings.weight"), places, op.constant(np.int32(0)))
        kinds = op.constant(self._weights["embeddings.token_type_embeddings.weight"][0].astype(np.float32))
        return self._norm(
            "embeddings.LayerNorm", op.add(op.add(op.gather(words, ids, op.constant(np.int32(0))), positions), kinds)
        )

    def layer(self, number: int, x: Node, blocked: Node) -> Node:
        at = f"encoder.layer.{number}"
        attended = self._dense(f"{at}.attention.output.dense", self._attention(f"{at}.attention.self", x, blocked))
        x = self._norm(f"{at}.attention.output.LayerNorm", op.add(x, attended))
        inner = op.gelu(self._dense(f"{at}.intermediate.dense", x), "erf")
        return self._norm(f"{at}.output.LayerNorm", op.add(x, self._dense(f"{at}.output.dense", inner)))

    def _attention(self, at: str, x: Node, blocked: Node) -> Node:
        heads = self._config.num_attention_heads
        each = self._config.hidden_size // heads
        split: Callable[[str], Node] = lambda name: op.transpose(  # noqa: E731
            op.reshape(self._dense(f"{at}.{name}", x), op.constant(np.array([0, 0, heads, each], np.int32)), True),
            op.constant(np.array([0, 2, 1, 3], np.int32)),
        )
        scores = op.multiply(
            op.matmul(split("query"), split("key"), False, True), op.constant(np.float32(1 / sqrt(each)))
        )
        mixed = op.matmul(op.softmax(op.add(scores, blocked), 3), split("value"), False, False)
        flat = op.transpose(mixed, op.constant(np.array([0, 2, 1, 3], np.int32)))
        return op.reshape(flat, op.constant(np.array([0, 0, -1], np.int32)), True)

    def _dense(self, at: str, x: Node) -> Node:
        return op.add(op.matmul(x, self._table(f"{at}.weight"), False, True), self._table(f"{at}.bias"))

    def _norm(self, at: str, x: Node) -> Node:
        scaled = op.mvn(x, _axis(-1), True, self._config.layer_norm_eps, "inside_sqrt")
        return op.add(op.multiply(scaled, self._table(f"{at}.weight")), self._table(f"{at}.bias"))

    def _table(self, name: str) -> Node:
        return op.constant(self._weights[name].astype(np.float32))


def _axis(number: int) -> Node:
    return op.constant(np.array([number], np.int64))
