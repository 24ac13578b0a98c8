"""What a bench is asked to do, checked once: after that every combination makes sense."""

import math

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import UsageError
from spillway.load.corpus import Yardstick
from spillway.load.schedule import OPEN_LOOP, Profile
from spillway.load.sizes import Fit
from spillway.load.slo import Slo
from spillway.wire.traces import Trace

DEFAULT_DURATION_S: Seconds = 30.0
DEFAULT_THROUGHPUT_STREAMS = 512
OPEN_LOOP_STREAMS = 8192
"""Most in flight of an open loop that was given no cap: connections are files, and a process may open only so many."""

DEFAULT_SWEEP_STEPS = 10


class Lengths(msgspec.Struct, frozen=True):
    """Normally distributed tokens per request; used where no trace gives them."""

    input_tokens: float = 120.0
    input_sd: float = 0.0
    output_tokens: float = 60.0
    output_sd: float = 0.0


class BenchOptions(msgspec.Struct, frozen=True):
    """`rate` is requests per second of constant and poisson, streams of concurrent, and steps of a sweep, as in GuideLLM.
    `yardstick` None: measured by probes before the run. With a trace, `replay` takes its arrivals and lengths, every
    other profile its lengths alone."""

    profile: Profile
    rate: float | None = None
    burstiness: float = 1.0
    max_concurrency: int | None = None
    duration_s: Seconds | None = None
    max_requests: int | None = None
    warmup_s: Seconds = 0.0
    timeout_s: Seconds = 120.0
    drain_s: Seconds = 120.0
    speed: float = 1.0
    trace: Trace | None = None
    lengths: Lengths = Lengths()
    fit: Fit = Fit()
    yardstick: Yardstick | None = None
    slo: Slo = Slo()


def checked(options: BenchOptions, *, streamed: bool) -> BenchOptions:
    """With the defaults of its profile filled in. Raises UsageError for what makes no sense."""
    _check_numbers(options)
    _check_rate(options.profile, options.rate)
    if options.profile is Profile.REPLAY and options.trace is None:
        raise UsageError("the profile replay needs --trace")
    if not streamed and (options.slo.ttft_ms or options.slo.tpot_ms):
        raise UsageError("--slo: ttft_ms and tpot_ms are only known of streams")
    if options.profile is Profile.SWEEP and options.warmup_s and options.max_requests and not options.duration_s:
        raise UsageError("a sweep with --warmup needs --duration")
    duration_s = _duration_s(options)
    if duration_s is not None and options.warmup_s >= duration_s:
        raise UsageError("--warmup must be shorter than the run")
    return msgspec.structs.replace(options, duration_s=duration_s)


def streams_of(options: BenchOptions, profile: Profile, rate: float | None) -> int:
    """The most in flight of one run."""
    match profile:
        case Profile.SYNCHRONOUS:
            return 1
        case Profile.CONCURRENT:
            return int(rate or 1)
        case Profile.THROUGHPUT:
            return options.max_concurrency or DEFAULT_THROUGHPUT_STREAMS
        case _:
            return options.max_concurrency or OPEN_LOOP_STREAMS


def _duration_s(options: BenchOptions) -> Seconds | None:
    if options.profile is Profile.REPLAY and options.trace is not None:
        # the last arrival is due at exactly the trace's end: a duration is what lies before it
        whole_s = math.nextafter(options.trace.duration_s / options.speed, math.inf)
        return min(options.duration_s or whole_s, whole_s)
    if options.duration_s is None and options.max_requests is None:
        return DEFAULT_DURATION_S
    return options.duration_s


def _check_rate(profile: Profile, rate: float | None) -> None:
    if profile in OPEN_LOOP - {Profile.REPLAY} or profile is Profile.CONCURRENT:
        if rate is None:
            raise UsageError(f"the profile {profile} needs --rate")
        if profile is Profile.CONCURRENT and (rate < 1 or rate != int(rate)):
            raise UsageError("--rate of the profile concurrent is a number of streams")
    elif profile is Profile.SWEEP:
        if rate is not None and (rate < 3 or rate != int(rate)):
            raise UsageError("--rate of the profile sweep is a number of steps, at least 3")
    elif rate is not None:
        raise UsageError(f"the profile {profile} takes no --rate")


def _check_numbers(options: BenchOptions) -> None:
    positive = {
        "--rate": options.rate,
        "--burstiness": options.burstiness,
        "--max-concurrency": options.max_concurrency,
        "--duration": options.duration_s,
        "--max-requests": options.max_requests,
        "--timeout": options.timeout_s,
        "--speed": options.speed,
        "--input-tokens": options.lengths.input_tokens,
        "--output-tokens": options.lengths.output_tokens,
        "--scale-input": options.fit.scale_input,
        "--scale-output": options.fit.scale_output,
        "--context": options.fit.context,
        "--chars-per-token": options.yardstick.chars_per_token if options.yardstick else None,
    }
    for name, number in positive.items():
        if number is not None and not (math.isfinite(number) and number > 0):
            raise UsageError(f"{name} must be above 0")
    at_least_zero = {
        "--warmup": options.warmup_s,
        "--drain": options.drain_s,
        "--input-tokens-sd": options.lengths.input_sd,
        "--output-tokens-sd": options.lengths.output_sd,
    }
    for name, number in at_least_zero.items():
        if not (math.isfinite(number) and number >= 0):
            raise UsageError(f"{name} must not be below 0")
