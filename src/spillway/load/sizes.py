"""How long the requests of a run are, in tokens, and how they are made to fit a model with a short context."""

from collections.abc import Iterator, Sequence
from itertools import cycle

import msgspec
import numpy as np

from spillway.wire.traces import TraceRecord

BLOCK_TOKENS = 512
"""What one hash id of a trace stands for."""

RESERVE_SHARE = 0.1
"""Of the context left free when clipping: a prompt's length in tokens is known from its characters only about so well."""


class Size(msgspec.Struct, frozen=True, gc=False):
    """One request's wanted length. `hash_ids` name the blocks of the prompt, each of `block_tokens`; None: a prompt of its own."""

    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] | None = None
    block_tokens: int = BLOCK_TOKENS
    clipped: bool = False


def drawn_sizes(
    input_tokens: float, input_sd: float, output_tokens: float, output_sd: float, rng: np.random.Generator
) -> Iterator[Size]:
    """Normally distributed lengths, at least 1 token, without end. A deviation of 0 gives the mean every time."""
    while True:
        inputs, outputs = rng.normal(input_tokens, input_sd), rng.normal(output_tokens, output_sd)
        yield Size(max(1, round(inputs)), max(1, round(outputs)))


def trace_sizes(records: Sequence[TraceRecord]) -> Iterator[Size]:
    """The lengths of a trace in its order, again and again."""
    return (
        Size(record.input_tokens, record.output_tokens, record.hash_ids or None, record.block_tokens)
        for record in cycle(records)
    )


class Fit(msgspec.Struct, frozen=True):
    """`scale_input` and `scale_output` multiply lengths. With `context` (tokens), what does not fit is clipped: first the
    output to half of the context, then the input to what is left. None: nothing is clipped."""

    scale_input: float = 1.0
    scale_output: float = 1.0
    context: int | None = None

    def apply(self, size: Size) -> Size:
        inputs = max(1, round(size.input_tokens * self.scale_input))
        outputs = max(1, round(size.output_tokens * self.scale_output))
        block_tokens = max(1, round(size.block_tokens * self.scale_input))
        if self.context is None:
            return Size(inputs, outputs, size.hash_ids, block_tokens)
        usable = max(2, int(self.context * (1 - RESERVE_SHARE)))
        fitting_outputs = min(outputs, max(usable // 2, usable - inputs))
        fitting_inputs = min(inputs, usable - fitting_outputs)
        clipped = (fitting_inputs, fitting_outputs) != (inputs, outputs)
        return Size(fitting_inputs, fitting_outputs, size.hash_ids, block_tokens, clipped)
