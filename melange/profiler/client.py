"""CompletionsClient: one OpenAI-compatible server, streamed completions of exact length, a record for every request.

Nothing is parsed while tokens arrive: each network read is stamped and kept, and the stream is understood once it has
ended, so that the client's own work does not move the times it measures.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from melange.errors import EngineError, MissingExtraError
from melange.profiler.answers import refuse_other_origin, secrets_in
from melange.profiler.load import RequestRecord, Size
from melange.serving.secrets import shown

if TYPE_CHECKING:
    import aiohttp

# Ids that are ordinary tokens in every vocabulary seen: special tokens sit at the very start or the end.
TOKEN_IDS = range(300, 1300)
TOLERATED_EXTRA_PROMPT_TOKENS = 2  # a server may add begin-of-sequence tokens
TOLERATED_EXTRA_CHUNKS = 2  # a role or finish chunk that carries no token
MOST_EVENT_BYTES, MOST_OTHER_BYTES = 4096, 65536  # of a token's event, and of all else that a stream holds
MOST_REDIRECTS = 3
_REPEATED = (307, 308)  # redirects that repeat a POST


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What a server understands beyond the standard: token-id prompts, ``ignore_eos``; words per token where not."""

    token_ids: bool = True
    ignore_eos: bool = True
    words_per_token: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a server listens, the model name it serves, and the headers that it wants."""

    url: str
    model: str
    headers: Mapping[str, str]

    @property
    def completions_url(self) -> str:
        return self.url.rstrip("/") + "/v1/completions"


class PromptSource:
    """Distinct random prompts from a seed; the first ``cached_tokens`` of every prompt of a size are the same."""

    def __init__(self, size: Size, dialect: Dialect, seed: int | str) -> None:
        self._size, self._dialect = size, dialect
        self._random = random.Random(seed)
        self._prefix = random.Random(f"prefix {size.cached_tokens}").choices(TOKEN_IDS, k=size.cached_tokens)

    def next(self) -> list[int] | str:
        fresh = self._size.input_tokens - self._size.cached_tokens
        ids = self._prefix + self._random.choices(TOKEN_IDS, k=fresh)
        if self._dialect.token_ids:
            return ids
        words = max(1, round(len(ids) * self._dialect.words_per_token))
        return " ".join(_word(ids[n % len(ids)] + n // len(ids)) for n in range(words))


def _word(number: int) -> str:
    """A short pronounceable word for a number: common enough to be few tokens in any vocabulary."""
    consonants, vowels = "bdfgklmnprst", "aeiou"
    first, rest = divmod(number, len(consonants) * len(vowels))
    return consonants[rest // len(vowels)] + vowels[rest % len(vowels)] + consonants[first % len(consonants)]


class CompletionsClient:
    """Sends streamed completions and returns records; ``clock`` is shared with the load generator.

    Use as an async context manager. ``timeout_s`` bounds one request: a server that hangs costs that long at most.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        dialect: Dialect | None = None,
        timeout_s: float = 600.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.endpoint = endpoint
        self.dialect = dialect or Dialect()
        self.clock = clock
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> CompletionsClient:
        aiohttp = import_aiohttp()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=min(10.0, self._timeout_s)),
            headers=dict(self.endpoint.headers),
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    def body(self, prompt: list[int] | str, output_tokens: int) -> bytes:
        """The JSON request body: exact output length, temperature 0, usage asked for."""
        content: dict[str, object] = {
            "model": self.endpoint.model,
            "prompt": prompt,
            "max_tokens": output_tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.dialect.ignore_eos:
            content["ignore_eos"] = True
        return json.dumps(content).encode()

    async def complete(
        self, prompt: list[int] | str, size: Size, *, began_s: float, scheduled_s: float | None = None
    ) -> RequestRecord:
        """Send one request now and follow it to its end; a fault becomes the record's ``error``, never an exception."""
        aiohttp = import_aiohttp()
        assert self._session is not None, "enter the client first"
        body = self.body(prompt, size.output_tokens)
        reads: list[tuple[float, bytes]] = []
        error: str | None = None
        sent = self.clock()
        try:
            await self._follow(body, reads, MOST_OTHER_BYTES + MOST_EVENT_BYTES * size.output_tokens)
        except TimeoutError:
            error = f"no end within {self._timeout_s:g} s"
        except EngineError as failure:
            error = str(failure)
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        timing = (sent - began_s, scheduled_s if scheduled_s is not None else sent - began_s)
        asked = len(prompt) if isinstance(prompt, list) else None
        record = _record(timing, reads, error, began_s=began_s, prompt_tokens=asked, output_tokens=size.output_tokens)
        if record.error is None:
            return record
        return replace(record, error=shown(record.error, secrets_in(self.endpoint.headers)))

    async def _follow(self, body: bytes, reads: list[tuple[float, bytes]], most_bytes: int) -> None:
        """Post and read the stream into ``reads``; EngineError for another status, another origin, or a flood."""
        assert self._session is not None
        url = self.endpoint.completions_url
        for _ in range(1 + MOST_REDIRECTS):
            async with self._session.post(
                url, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as response:
                if response.status in _REPEATED and "Location" in response.headers:
                    url = refuse_other_origin(url, response.headers["Location"])
                    continue
                if response.status != 200:
                    text = (await response.content.read(MOST_OTHER_BYTES)).decode(errors="replace")
                    raise EngineError(f"HTTP {response.status}: {text}")
                left = most_bytes
                async for data in response.content.iter_any():
                    reads.append((self.clock(), data))
                    left -= len(data)
                    if left < 0:
                        raise EngineError(f"stream holds more than {most_bytes} bytes")
                return
        raise EngineError(f"{MOST_REDIRECTS} redirects and no answer")


def _record(
    timing: tuple[float, float],
    reads: Sequence[tuple[float, bytes]],
    error: str | None,
    *,
    began_s: float,
    prompt_tokens: int | None,
    output_tokens: int,
) -> RequestRecord:
    sent, scheduled = timing
    if error is not None:
        return RequestRecord(sent_s=sent, scheduled_s=scheduled, error=error)
    try:
        stream = _understand(reads)
        _check_counts(stream, prompt_tokens, output_tokens)
    except EngineError as failure:
        return RequestRecord(sent_s=sent, scheduled_s=scheduled, error=str(failure))
    times = tuple(at - began_s for at in stream.token_s)
    return RequestRecord(
        sent_s=sent,
        scheduled_s=scheduled,
        first_s=times[0],
        end_s=times[-1],
        input_tokens=stream.input_tokens,
        cached_tokens=stream.cached_tokens,
        output_tokens=stream.output_tokens,
        token_s=times,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stream:
    token_s: tuple[float, ...]
    input_tokens: int
    cached_tokens: int | None
    output_tokens: int


def _understand(reads: Sequence[tuple[float, bytes]]) -> _Stream:
    """Events of the reads, each at the time of the read that completed it; raises EngineError on anything else."""
    raw = b"".join(data for _, data in reads).replace(b"\r\n", b"\n")
    events = [event for event in raw.split(b"\n\n") if event.strip()]
    times: list[float] = []
    previous = b""
    for at, data in reads:
        # a separator may itself be cut by a read; comparing with the last bytes seen keeps the count exact
        joined = (previous + data).replace(b"\r\n", b"\n")
        times.extend([at] * joined.count(b"\n\n"))
        previous = b"\n" if joined.endswith(b"\n") and not joined.endswith(b"\n\n") else b""
    if not all(event.startswith(b"data:") for event in events):
        raise EngineError(f"stream is not server-sent events: {raw[:60]!r}")
    if not events or events[-1].removeprefix(b"data:").strip() != b"[DONE]":
        raise EngineError(f"stream closed early after {len(events)} events")
    bodies = [event.removeprefix(b"data:").strip() for event in events[:-1]]
    if not all(body.startswith(b"{") and body.endswith(b"}") for body in bodies):
        raise EngineError("stream holds something that is not JSON")
    input_tokens, output_tokens, cached_tokens = _usage(bodies)
    token_s = [at for at, body in zip(times, bodies, strict=False) if not _is_usage_only(body)]
    if not token_s:
        raise EngineError("stream holds no token")
    return _Stream(
        token_s=tuple(token_s), input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached_tokens
    )


def _is_usage_only(body: bytes) -> bool:
    return b'"choices":[]' in body or b'"choices": []' in body


def _usage(bodies: Sequence[bytes]) -> tuple[int, int, int | None]:
    """(prompt, completion, cached prompt tokens) as the server counted them, from the last event that says so."""
    for body in reversed(bodies[-3:]):
        if b'"usage"' not in body and b'"error"' not in body:
            continue
        try:
            content = json.loads(body)
        except ValueError as error:
            raise EngineError("stream holds something that is not JSON") from error
        if "error" in content:
            raise EngineError(f"server error inside the stream: {str(content['error'])[:200]}")
        usage = content.get("usage")
        if isinstance(usage, dict):
            try:
                return int(usage["prompt_tokens"]), int(usage["completion_tokens"]), _cached_tokens(usage)
            except (KeyError, TypeError, ValueError) as error:
                raise EngineError(f"usage is {str(usage)[:100]}") from error
    raise EngineError("server did not count tokens (no usage in its stream)")


def _cached_tokens(usage: Mapping[str, object]) -> int | None:
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if isinstance(cached, int) else None


def _check_counts(stream: _Stream, prompt_tokens: int | None, output_tokens: int) -> None:
    if stream.output_tokens != output_tokens:
        raise EngineError(f"returned {stream.output_tokens} tokens of {output_tokens} asked for")
    if len(stream.token_s) > stream.output_tokens + TOLERATED_EXTRA_CHUNKS:
        raise EngineError(f"usage says {stream.output_tokens} tokens, but {len(stream.token_s)} chunks came")
    if prompt_tokens is not None and not 0 <= stream.input_tokens - prompt_tokens <= TOLERATED_EXTRA_PROMPT_TOKENS:
        raise EngineError(f"usage says {stream.input_tokens} prompt tokens, {prompt_tokens} were sent")


def import_aiohttp() -> Any:
    """The aiohttp module; raises MissingExtraError with the install command where it is absent."""
    try:
        import aiohttp
    except ImportError as error:
        raise MissingExtraError.of("aiohttp", "profile", "profiling a server") from error
    return aiohttp
