"""Answers of ill servers: bounded in time and size, from one origin, without the keys that they echo."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from melange.cli.main import main
from melange.errors import EngineError, InputError
from melange.profiler import answers
from melange.profiler.answers import get_json, get_text, refuse_other_origin
from melange.profiler.client import CompletionsClient, Endpoint, PromptSource
from melange.profiler.engine import AttachedServer, VllmServer, last_error, served_models
from melange.profiler.load import RequestRecord, Size
from melange.profiler.runner import ServerRequest
from melange.testing.fault_server import FaultServer

SECRET = "Zq7-planted.9"
HEADERS = {"Authorization": f"Bearer {SECRET}"}
SIZE = Size(8, 4)


def completed(server: FaultServer) -> RequestRecord:
    async def one() -> RequestRecord:
        endpoint = Endpoint(url=server.url, model="fault", headers=HEADERS)
        async with CompletionsClient(endpoint, timeout_s=10) as client:
            prompt = PromptSource(SIZE, client.dialect, seed=0).next()
            return await client.complete(prompt, SIZE, began_s=client.clock())

    return asyncio.run(one())


def test_an_endless_answer_ends_at_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_BYTES", 2**20)
    with (
        FaultServer(fault="endless models") as server,
        pytest.raises(EngineError, match="answers with more than 1 MiB"),
    ):
        get_text(server.url + "/v1/models")


def test_a_dripping_answer_ends_at_a_time() -> None:
    with FaultServer(fault="drips") as server, pytest.raises(EngineError, match=r"not answered whole within 0\.2 s"):
        get_text(server.url + "/v1/models", within_s=0.2)


def test_a_flood_of_chunks_ends_at_a_size() -> None:
    with FaultServer(fault="floods") as server:
        error = completed(server).error
    assert error is not None
    assert "stream holds more than" in error


def test_keys_do_not_follow_a_redirect_to_another_origin() -> None:
    with FaultServer() as other, FaultServer(fault="redirects elsewhere", elsewhere=other.url) as server:
        error = completed(server).error
        assert other.requests == 0
    assert error is not None
    assert f"{server.url} redirects to {other.url}" in error
    assert SECRET not in error


@pytest.mark.parametrize(
    ("location", "target"),
    [("/v2", "http://a:80/v2"), ("http://a/v2", "http://a/v2"), ("next", "http://a:80/next")],
)
def test_redirects_on_the_same_origin_are_followed(location: str, target: str) -> None:
    assert refuse_other_origin("http://a:80/v1", location) == target


@pytest.mark.parametrize("location", ["https://a/", "http://b/", "http://a:81/", "//b/", "ftp://a/", "http://u:p@b/"])
def test_other_origins_are_refused(location: str) -> None:
    with pytest.raises(EngineError, match="which is another server") as caught:
        refuse_other_origin("http://a/v1", location)
    assert "u:p" not in str(caught.value)


def test_an_echoed_key_is_masked_and_the_text_harmless() -> None:
    with FaultServer(fault="echoes headers") as server:
        error = completed(server).error
    assert error is not None
    assert error.startswith("HTTP 500: \\x1b[2J")
    assert SECRET not in error
    assert error.isprintable()
    assert len(error) <= 200


@pytest.mark.parametrize("url", ["nonsense", "http://[", "http://127.0.0.1:99999/"])
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises((InputError, EngineError)):
        get_json(url, {})


@pytest.mark.parametrize("key", ["a\nb", "schlüssel", "x\x00"])
def test_a_key_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr("melange.profiler.engine.os.environ", {"KEY": key})
    with pytest.raises(InputError, match="holds characters that no key has"):
        AttachedServer(url="http://127.0.0.1:1", api_key_env="KEY").start()


def test_a_started_engine_gets_its_key_and_the_records_do_not(tmp_path: Path) -> None:
    server = VllmServer(model="m", served_name="m", args=("--api-key", SECRET, "--max-num-seqs", "8"), port=1)
    assert SECRET in server._command()
    assert SECRET not in server.command_line()
    assert server.command_line()[-2:] == ["--max-num-seqs", "8"]
    log = tmp_path / "log"
    log.write_text(f"args: {{'api_key': ['{SECRET}']}}\nValueError: no {SECRET}\x1b[0m\n")
    assert last_error(log, (SECRET,)) == "ValueError: no ***\\x1b[0m"


def test_no_output_of_a_profile_run_holds_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything that is printed or written is searched: of a good server and of one that echoes what it is sent."""
    monkeypatch.setenv("PLANTED_KEY", SECRET)
    said = []
    quick = ("--requests", "50", "--point-seconds", "2", "--input-tokens", "8", "--output-tokens", "4")
    for fault in ("none", "echoes headers"):
        with FaultServer(fault=fault, after=2) as server:  # type: ignore[arg-type]
            ways = [(), ("--dry-run",)]
            for way in ways:
                arguments = ["profile", "run", "--url", server.url, "--api-key-env", "PLANTED_KEY", "--gpu", "L4", *way]
                arguments += ["--slo-tpot-ms", "50", "--tpot-definition", "decode", *quick]
                arguments += ["--max-concurrency", "2", "-o", str(tmp_path / f"{fault}.jsonl")]
                with pytest.raises(SystemExit):
                    main(arguments)
                said.append("".join(capsys.readouterr()))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    lines = [line for path in files if path.suffix == ".jsonl" for line in path.read_text().splitlines()]
    assert any("HTTP 500" in json.loads(line).get("invalid_reason", "") for line in lines), said
    for text in (*said, *(path.read_text(errors="replace") for path in files)):
        assert SECRET not in text


def test_models_of_a_server_that_names_none() -> None:
    with FaultServer() as server:
        assert served_models(server.url, {}) == {"fault": 4096}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://h:1?key=SECRET1", r"goes on behind its path"),
        ("http://h:1#part", "goes on behind its path"),
        ("http://user:SECRET1@h:1", "holds a user's name; .*--api-key-env"),
        ("ftp://h", "no http URL"),
        ("h:8000", "no http URL"),
    ],
)
def test_addresses_that_no_path_can_be_put_behind_are_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ServerRequest(url=url)
    assert "SECRET1" not in str(caught.value)
