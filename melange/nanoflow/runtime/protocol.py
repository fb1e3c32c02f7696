"""The OpenAI completions protocol: what a request asks for, and the JSON of answers and stream chunks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melange.errors import InputError

DEFAULT_MAX_TOKENS = 16
# Parts of the protocol that this engine leaves out, with the values that ask for nothing.
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "logprobs": (None,),
    "min_p": (None, 0),
    "min_tokens": (None, 0),
    "n": (None, 1),
    "presence_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "seed": (None,),
    "stop": (None, [], ""),
    "suffix": (None, ""),
    "top_k": (None, 0, -1),
    "top_p": (None, 1),
}
KNOWN = ("model", "prompt", "max_tokens", "temperature", "ignore_eos", "stream", "stream_options", "return_token_ids")
IGNORED = ("user",)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionCall:
    """A request's meaning: each prompt as text or token ids, each answered by one choice, in the same order."""

    model: str | None
    prompts: tuple[str | tuple[int, ...], ...]
    max_tokens: int
    temperature: float
    ignore_end: bool
    stream: bool
    include_usage: bool
    token_ids: bool


def parse_call(body: bytes) -> CompletionCall:
    """Read a request body; what is malformed, unknown or not supported raises InputError."""
    try:
        plain = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("the body is not JSON") from None
    if not isinstance(plain, dict):
        raise InputError("the body is not a JSON object")
    for name, value in plain.items():
        if name not in (*KNOWN, *IGNORED, *NEUTRAL):
            raise InputError(f"unknown parameter {shown(name)}", fix=f"known are {', '.join(KNOWN)}")
        if name in NEUTRAL and value not in NEUTRAL[name]:
            raise InputError(f"{name} {shown(value)} is not supported", fix="leave it out")
    options = _typed(plain, "stream_options", dict, {})
    return CompletionCall(
        model=_typed(plain, "model", str, None),
        prompts=_prompts(plain.get("prompt")),
        max_tokens=_typed(plain, "max_tokens", int, DEFAULT_MAX_TOKENS),
        temperature=_temperature(plain),
        ignore_end=_typed(plain, "ignore_eos", bool, False),
        stream=_typed(plain, "stream", bool, False),
        include_usage=_typed(options, "include_usage", bool, False),
        token_ids=_typed(plain, "return_token_ids", bool, False),
    )


def _typed(plain: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any) -> Any:
    value = plain.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{name} is {shown(value)}", fix="check its type")
    return value


def _temperature(plain: Mapping[str, Any]) -> float:
    value = _typed(plain, "temperature", (int, float), 1.0)
    try:
        return float(value)
    except OverflowError:
        raise InputError("temperature is too large") from None


def _prompts(prompt: object) -> tuple[str | tuple[int, ...], ...]:
    def is_ids(value: object) -> bool:
        return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)

    if isinstance(prompt, str):
        return (prompt,)
    if is_ids(prompt):
        return (tuple(prompt),)  # type: ignore[arg-type]
    if isinstance(prompt, list) and prompt and all(isinstance(item, str) or is_ids(item) for item in prompt):
        return tuple(item if isinstance(item, str) else tuple(item) for item in prompt)
    raise InputError("prompt is neither text nor token ids", fix="give a string, a list of ids, or a list of those")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What all parts of one answer share."""

    id: str
    created: int
    model: str

    def body(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> dict[str, Any]:
        """A whole answer or one chunk of a stream."""
        head = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return {**head, "choices": choices, **({} if usage is None else {"usage": usage})}


def choice(index: int, text: str, finish_reason: str | None, tokens: list[int] | None) -> dict[str, Any]:
    """One choice of an answer; ``tokens`` None leaves its token ids out."""
    plain = {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
    return plain if tokens is None else {**plain, "token_ids": tokens}


def usage_of(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The protocol's token counts."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def event_line(body: dict[str, Any] | str) -> bytes:
    """A server-sent event."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def error_body(message: str, status: int) -> dict[str, Any]:
    """The protocol's error object."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def shown(value: object) -> str:
    """A client's value as a message repeats it: its beginning."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
