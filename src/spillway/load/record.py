"""What is written down about one request of a load run: the line of `--log`, and what all figures are made from."""

from collections.abc import Callable

import msgspec

from spillway.core.clock import Seconds

NOT_SENT = "not_sent"  # due, but no room under the cap until the end of the run
UNFINISHED = "unfinished"  # still running at the end of the drain
INTERRUPTED = "interrupted"  # cancelled by Ctrl-C: in the log, but neither a request nor an error of the result
TIMEOUT = "timeout"  # no complete answer within the time-out
CUT = "cut"  # a stream without a finish reason or [DONE], or a connection that broke after the answer began
MALFORMED = "malformed"  # an answer that is not what the API promises


class RequestRecord(msgspec.Struct, gc=False):
    """One request. Times are seconds from the start of the run.

    `intended_s` is when the schedule wanted it sent; latencies count from there, so that a generator or a server that
    stalls cannot hide what it did to the requests that had to wait (coordinated omission). `error` None means that the
    complete answer came.
    """

    index: int
    client: str
    intended_s: Seconds
    input_tokens: int  # wanted
    max_tokens: int
    step: int = 0  # of a sweep
    warmup: bool = False
    clipped: bool = False
    sent_s: Seconds | None = None
    first_s: Seconds | None = None  # first content; streams only
    last_s: Seconds | None = None  # last byte of the answer
    status: int = 0  # 0: no answer came
    error: str | None = None
    prompt_tokens: int | None = None  # as the server reports it
    output_tokens: int = 0
    counted: bool = False  # output_tokens are counted events: the server reported no usage
    pool: str | None = None
    version: str | None = None
    spill: str | None = None
    attempts: int | None = None
    request_id: str | None = None

    @property
    def ttft_s(self) -> Seconds | None:
        """Intended send time to first content."""
        return None if self.first_s is None else self.first_s - self.intended_s

    @property
    def e2e_s(self) -> Seconds | None:
        """Intended send time to the last byte."""
        return None if self.last_s is None else self.last_s - self.intended_s

    @property
    def tpot_s(self) -> Seconds | None:
        """(e2e − TTFT) / (n_out − 1); None below two output tokens."""
        if self.first_s is None or self.last_s is None or self.output_tokens < 2:
            return None
        return (self.last_s - self.first_s) / (self.output_tokens - 1)


Measure = Callable[[RequestRecord], Seconds | None]
"""A duration of a request; None where it has none."""
