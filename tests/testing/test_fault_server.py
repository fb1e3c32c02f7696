"""The server that misbehaves, spoken to without the project's client."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from melange.errors import InputError
from melange.testing.fault_server import BLOCK_TOKENS, FaultServer


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as response:
        text = response.read()
    return json.loads(text) if text else None


def complete(server: FaultServer, prompt: list[int] | str, max_tokens: int = 4) -> tuple[int, list[Any]]:
    """Status and events, ``[DONE]`` left out."""
    body = json.dumps({"prompt": prompt, "max_tokens": max_tokens}).encode()
    asked = urllib.request.Request(server.url + "/v1/completions", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=30) as response:
            lines = [line for line in response.read().split(b"\n\n") if line]
            assert lines.pop() == b"data: [DONE]"
            return response.status, [json.loads(line.removeprefix(b"data: ")) for line in lines]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, [json.loads(error.read())]


def test_it_says_what_it_is() -> None:
    with FaultServer(max_model_len=123) as server:
        assert get(server.url + "/health") is None
        assert get(server.url + "/version") == {"version": "fault-1"}
        (model,) = get(server.url + "/v1/models")["data"]
        assert (model["id"], model["max_model_len"]) == ("fault", 123)


def test_a_good_answer_is_stamped_tokens_and_a_true_count() -> None:
    with FaultServer() as server:
        status, events = complete(server, [1] * 20, max_tokens=5)
    assert status == 200
    stamps = [float(event["choices"][0]["text"]) for event in events[:-1]]
    assert len(stamps) == 5
    assert stamps == sorted(stamps)
    assert events[-1] == {
        "choices": [],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
    }


@pytest.mark.parametrize(
    ("fault", "tokens", "usage"),
    [
        ("too few tokens", 2, {"prompt_tokens": 20, "completion_tokens": 2}),
        ("lies about tokens", 4, {"prompt_tokens": 20, "completion_tokens": 12}),
        ("lies about prompts", 4, {"prompt_tokens": 10, "completion_tokens": 4}),
        ("no usage", 4, None),
    ],
)
def test_faults_of_the_count(fault: Any, tokens: int, usage: dict[str, int] | None) -> None:
    with FaultServer(fault=fault) as server:
        _, events = complete(server, [1] * 20)
    assert sum(bool(event["choices"]) for event in events) == tokens
    told = [event["usage"] for event in events if "usage" in event]
    assert [{name: row[name] for name in usage or ()} for row in told] == ([] if usage is None else [usage])


def test_the_share_that_suffers_comes_evenly_and_after_a_while() -> None:
    with FaultServer(fault="500", share=0.5, after=2) as server:
        assert [complete(server, [1], 1)[0] for _ in range(8)] == [200, 200, 200, 500, 200, 500, 200, 500]
        assert server.requests == 8


def test_token_ids_are_refused_and_text_is_not() -> None:
    with FaultServer(fault="refuses token ids") as server:
        status, (answer,) = complete(server, [1, 2])
        assert (status, answer["error"]["message"]) == (400, "prompt must be text")
        status, events = complete(server, "three short words")
    assert (status, events[-1]["usage"]["prompt_tokens"]) == (200, 3)


@pytest.mark.parametrize(
    ("fault", "first", "again"),
    [
        ("none", None, {"cached_tokens": 2 * BLOCK_TOKENS}),
        ("no prefix cache", {"cached_tokens": 0}, {"cached_tokens": 0}),
        ("caches what is distinct", {"cached_tokens": 39}, {"cached_tokens": 39}),
    ],
)
def test_a_seen_prompt_is_cached_in_whole_blocks(fault: Any, first: object, again: object) -> None:
    with FaultServer(fault=fault, tells_cached=True) as server:
        for expected in (first, again):
            usage = complete(server, list(range(40)))[1][-1]["usage"]
            assert usage["prompt_tokens_details"] == expected


def test_it_listens_no_more_once_left() -> None:
    with FaultServer() as server:
        pass
    with pytest.raises(urllib.error.URLError):
        get(server.url + "/health")


def test_a_fault_that_it_does_not_know() -> None:
    with pytest.raises(InputError, match="fault is 'explodes'; use one of none, refuses token ids"):
        FaultServer(fault="explodes")  # type: ignore[arg-type]
