"""What a server answers to a GET: within a time and a size, from the origin that was asked, without secrets."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import IO
from urllib.parse import urljoin, urlsplit

from melange.errors import EngineError, InputError
from melange.serving.secrets import masked, shown

ANSWER_S = 30.0
"""For the whole of an answer: a server that sends a byte now and then is as good as silent."""
SILENCE_S = 10.0
MOST_BYTES = 16 * 2**20  # the metrics of a busy fleet are some hundred kilobytes
_CHUNK = 65536


def get_text(url: str, headers: Mapping[str, str] | None = None, *, within_s: float = ANSWER_S) -> str:
    """What a server answers; raises EngineError with the reason where it does not, InputError for a bad address.

    The whole answer must come ``within_s`` seconds and hold no more than :data:`MOST_BYTES`. Redirects are followed on
    the same origin alone: another must not be told the headers.
    """
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}))
    except ValueError as error:
        raise InputError(f"{masked(url)} is not an address", fix="give one like http://127.0.0.1:8000") from error
    found: list[bytes | Exception] = []

    def ask() -> None:
        try:
            found.append(_answer(request))
        except Exception as error:  # handed to the caller's thread
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(within_s)
    if not found:
        raise EngineError(f"{masked(url)} has not answered whole within {within_s:g} s")
    if isinstance(found[0], bytes):
        return found[0].decode(errors="replace")
    raise _reason(url, found[0], headers or {}) from found[0]


def _answer(request: urllib.request.Request) -> bytes:
    with _OPENER.open(request, timeout=SILENCE_S) as answer:
        parts, size = [], 0
        while part := answer.read1(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                raise EngineError(f"{masked(request.full_url)} answers with more than {MOST_BYTES >> 20} MiB")
        return b"".join(parts)


def _reason(url: str, error: Exception, headers: Mapping[str, str]) -> Exception:
    where = masked(url)
    if isinstance(error, EngineError):
        return error
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return EngineError(f"{where} answers HTTP {error.code}")
    if isinstance(error, OSError | http.client.HTTPException):
        return EngineError(
            f"{where} cannot be reached: {shown(str(getattr(error, 'reason', error)), secrets_in(headers))}"
        )
    if isinstance(error, ValueError):
        return InputError(f"{where} is not an address", fix="give one like http://127.0.0.1:8000")
    return error


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        try:
            refuse_other_origin(req.full_url, newurl)
        except EngineError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SameOrigin)


def check_server_url(url: str) -> None:
    """InputError for what is no address of a server: paths are put behind it, and keys are not taken from it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"the server's address {shown(url)} is no http URL", fix="give one like http://127.0.0.1:8000")
    if parts.query or parts.fragment:
        raise InputError(f"the server's address {shown(url)} goes on behind its path", fix="give --url without ? and #")
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"the server's address {shown(url)} holds a user's name",
            fix="give it without, and the name of a variable that holds the key with --api-key-env",
        )


def refuse_other_origin(url: str, location: str) -> str:
    """Where a redirect from ``url`` leads; EngineError where that is another origin, which must not get the key."""
    target = urljoin(url, location)
    if _origin(target) != _origin(url):
        raise EngineError(
            f"{_shown_origin(url)} redirects to {_shown_origin(target)}, which is another server: give its own address "
            "with --url if it is meant"
        )
    return target


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}.get(parts.scheme)


def _shown_origin(url: str) -> str:
    parts = urlsplit(url)
    return shown(f"{parts.scheme}://{parts.netloc}")


def secrets_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The values of headers that hold keys, whole and without their scheme."""
    values = [value for name, value in headers.items() if name.lower() not in ("content-type", "accept")]
    return (*values, *(value.split()[-1] for value in values if value.split()))


def get_json(url: str, headers: Mapping[str, str]) -> object:
    """A server's JSON answer; raises EngineError with the reason where there is none."""
    try:
        return json.loads(get_text(url, headers))
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{masked(url)} does not answer with JSON") from error
