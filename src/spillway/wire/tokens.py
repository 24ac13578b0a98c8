"""Tokens of a request before an engine has counted them: from bytes, with a ratio that is learned from what engines report."""

import math

FIRST_TOKENS_PER_BYTE = 0.25
"""English text in JSON, most tokenizers."""
LEAST_TOKENS_PER_BYTE = 0.001
MOST_TOKENS_PER_BYTE = 2.0
_WEIGHT = 0.05


class TokenRatio:
    """Tokens per byte of one model's prompts: an exponentially weighted mean over requests, each with weight 0.05.

    One odd request (an image in base64, a prompt from a cache that the engine does not count) moves it little, and it
    stays within its bounds whatever is reported.
    """

    __slots__ = ("tokens_per_byte",)

    def __init__(self, tokens_per_byte: float = FIRST_TOKENS_PER_BYTE) -> None:
        self.tokens_per_byte = tokens_per_byte

    def tokens(self, input_bytes: int) -> int:
        """The estimate for a prompt, rounded up."""
        return math.ceil(input_bytes * self.tokens_per_byte)

    def observe(self, input_bytes: int, prompt_tokens: int) -> None:
        """An engine counted `prompt_tokens` (cached ones included) for a prompt of `input_bytes`."""
        if input_bytes <= 0 or prompt_tokens <= 0:
            return
        seen = min(MOST_TOKENS_PER_BYTE, max(LEAST_TOKENS_PER_BYTE, prompt_tokens / input_bytes))
        self.tokens_per_byte += _WEIGHT * (seen - self.tokens_per_byte)
