"""Load, what is put on an engine, and LoadRun, the record that it leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from melange.errors import InputError


class Size(NamedTuple):
    """Tokens of every request of a load: prompt, output, and how much of the prompt all prompts have in common."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0

    def describe(self) -> str:
        cached = f" ({self.cached_tokens} cached)" if self.cached_tokens else ""
        return f"{self.input_tokens}{cached} -> {self.output_tokens} tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to put on an engine: Poisson arrivals at ``rate_rps``, or ``concurrency`` requests kept in flight.

    Exactly one of the two is given. An open loop lasts until its question is answered, at most ``max_s``, and
    concludes nothing before ``min_requests`` have finished. A closed loop ends with its ``min_requests``-th request,
    or at ``max_s`` with what it has.
    """

    size: Size
    rate_rps: float | None = None
    concurrency: int | None = None
    max_s: float
    min_requests: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.rate_rps is None) == (self.concurrency is None):
            raise InputError("a load has a rate or a concurrency", fix="give exactly one of the two")
        if self.rate_rps is not None and not (math.isfinite(self.rate_rps) and self.rate_rps > 0):
            raise InputError(f"load: rate_rps is {self.rate_rps}", fix="give a positive rate")
        if self.concurrency is not None and self.concurrency < 1:
            raise InputError(f"load: concurrency is {self.concurrency}", fix="give at least 1")
        if not (math.isfinite(self.max_s) and self.max_s > 0):
            raise InputError(f"load: max_s is {self.max_s}", fix="give a positive time")

    @property
    def loop(self) -> Literal["open", "closed"]:
        return "closed" if self.rate_rps is None else "open"

    def describe(self) -> str:
        if self.rate_rps is not None:
            return f"{self.rate_rps:.3g} req/s"
        return f"concurrency {self.concurrency}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request as the client saw it; times in seconds since the load began.

    ``first_s`` and ``end_s`` are when its first and last token arrived, None for a request that failed before.
    ``token_s`` are the arrival times of its streamed chunks. Tokens are those that the server counted (``usage``);
    ``cached_tokens`` those of the prompt that it says it had in its prefix cache, None where it does not say.
    ``error`` None is a success.
    """

    sent_s: float
    scheduled_s: float
    first_s: float | None = None
    end_s: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    token_s: tuple[float, ...] = ()
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None and self.first_s is not None and self.end_s is not None

    @property
    def ttft_s(self) -> float:
        """Time to first token; NaN for a failed request."""
        return math.nan if self.first_s is None else self.first_s - self.sent_s

    @property
    def e2e_s(self) -> float:
        """End-to-end latency; NaN for a failed request."""
        return math.nan if self.end_s is None else self.end_s - self.sent_s

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Every inter-token gap."""
        return tuple(b - a for a, b in zip(self.token_s[:-1], self.token_s[1:], strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHealth:
    """How busy the load generator itself was.

    ``busy_share`` is the share of one core that its thread used, ``ceiling_chunks_per_s`` the streamed chunks per
    second at which that share would reach 1, ``lag_p99_s`` how late its event loop ran, ``late_p99_s`` how late
    requests were sent. All are 0 for a simulated load.
    """

    busy_share: float = 0.0
    ceiling_chunks_per_s: float = 0.0
    lag_p99_s: float = 0.0
    late_p99_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRun:
    """A load while it runs or after it: finished records in order of completion, and what is still in flight.

    ``in_flight_sent_s`` holds when the unfinished requests were sent; ``elapsed_s`` is the time since the load began.
    """

    load: Load
    records: tuple[RequestRecord, ...]
    in_flight_sent_s: tuple[float, ...]
    elapsed_s: float
    health: ClientHealth = ClientHealth()
