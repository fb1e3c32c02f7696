"""The HTTP server over loopback, and the command that starts it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("aiohttp")

import aiohttp
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner

from melange.cli.nanoflow import COMMANDS, nanoflow
from melange.errors import InputError, MissingExtraError
from melange.nanoflow.runtime.engine_thread import EngineThread
from melange.nanoflow.runtime.protocol import parse_call
from melange.nanoflow.runtime.server import make_app
from melange.nanoflow.runtime.text import TextCodec, TextStream
from melange.testing.tiny_model import write_tiny_model

Engines = Callable[..., Any]
PROMPT = [5, 9, 11, 40]


@asynccontextmanager
async def client_of(engine: Any, codec: TextCodec | None = None) -> AsyncIterator[TestClient[Any, Any]]:
    thread = EngineThread(engine)
    thread.start()
    try:
        server = TestServer(make_app(thread, name="tiny", codec=codec or TextCodec()))
        async with TestClient(server) as client:
            yield client
    finally:
        thread.stop()


def over_http(engine: Any, talk: Callable[[TestClient[Any, Any]], Awaitable[None]]) -> None:
    async def run() -> None:
        async with client_of(engine) as client:
            await talk(client)

    asyncio.run(run())


async def events_of(response: Any) -> list[Any]:
    lines = (await response.read()).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_small_routes(make_engine: Engines) -> None:
    async def talk(client: TestClient[Any, Any]) -> None:
        assert (await client.get("/health")).status == 200
        assert (await (await client.get("/version")).json())["engine"] == "nanoflow"
        models = await (await client.get("/v1/models")).json()
        assert [(card["id"], card["max_model_len"]) for card in models["data"]] == [("tiny", 256)]
        for response in (await client.get("/v1/chat"), await client.get("/v1/completions")):
            assert response.status in (404, 405)
            assert (await response.json())["error"]["code"] == response.status

    over_http(make_engine("llama"), talk)


def test_stream_is_one_event_a_token_then_usage_then_done(make_engine: Engines) -> None:
    async def talk(client: TestClient[Any, Any]) -> None:
        call = {
            "model": "tiny",
            "prompt": PROMPT,
            "max_tokens": 7,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        streaming = {**call, "stream": True, "stream_options": {"include_usage": True}}
        response = await client.post("/v1/completions", json=streaming)
        assert response.headers["Content-Type"] == "text/event-stream"
        *chunks, last = await events_of(response)
        assert last["choices"] == []
        assert last["usage"] == {"prompt_tokens": 4, "completion_tokens": 7, "total_tokens": 11}
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 6 + ["length"]
        streamed = [token for chunk in chunks for token in chunk["choices"][0]["token_ids"]]
        whole = await (await client.post("/v1/completions", json=call)).json()
        assert whole["choices"][0]["token_ids"] == streamed
        assert whole["choices"][0]["text"] == "".join(f" {token}" for token in streamed)
        assert whole["usage"] == last["usage"]
        without = await events_of(await client.post("/v1/completions", json={**call, "stream": True}))
        assert len(without) == 7

    over_http(make_engine("llama"), talk)


def test_prompts_of_one_call_and_calls_at_once_are_answered_as_alone(make_engine: Engines) -> None:
    prompts = [[5, 9, 11], [7] * 30, [100, 3]]
    call = {"max_tokens": 6, "temperature": 0, "ignore_eos": True, "return_token_ids": True}

    async def talk(client: TestClient[Any, Any]) -> None:
        async def ask(prompt: object) -> list[list[int]]:
            answer = await (await client.post("/v1/completions", json={**call, "prompt": prompt})).json()
            return [choice["token_ids"] for choice in answer["choices"]]

        alone = [tokens for prompt in prompts for tokens in await ask(prompt)]
        assert await ask(prompts) == alone
        together = await asyncio.gather(*(ask(prompt) for prompt in prompts * 5))
        assert [tokens for (tokens,) in together] == alone * 5

    over_http(make_engine("mixtral"), talk)


def test_a_client_that_leaves_frees_its_request(make_engine: Engines) -> None:
    engine = make_engine("llama")

    async def talk(client: TestClient[Any, Any]) -> None:
        call = {"prompt": PROMPT, "max_tokens": 200, "ignore_eos": True, "stream": True}
        response = await client.post("/v1/completions", json=call)
        await response.content.readline()
        response.close()
        for _ in range(2000):
            if engine.scheduler.idle:
                break
            await asyncio.sleep(0.01)
        assert engine.scheduler.idle
        assert engine.scheduler.free_pages == engine.scheduler.limits.pages
        assert (await client.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 1})).status == 200

    over_http(engine, talk)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("{", 400, "not JSON"),
        ("[]", 400, "not a JSON object"),
        ('{"prompt": "text"}', 400, "no tokenizer"),
        ('{"prompt": []}', 400, "neither text nor token ids"),
        ('{"prompt": [1.5]}', 400, "neither text nor token ids"),
        ('{"prompt": [500]}', 400, "outside the vocabulary"),
        ('{"prompt": [5], "max_tokens": 300}', 400, "context of 256"),
        ('{"prompt": [5], "max_tokens": "9"}', 400, "max_tokens is '9'"),
        ('{"prompt": [5], "temperature": -1}', 400, "temperature"),
        ('{"prompt": [5], "temperature": 1' + "0" * 400 + "}", 400, "temperature"),
        ("[" * 100_000, 400, "not JSON"),
        ('{"prompt": [5], "n": 2}', 400, "n 2 is not supported"),
        ('{"prompt": [5], "stopp": "x"}', 400, "unknown parameter 'stopp'"),
        ('{"prompt": [5], "model": "other"}', 404, "'other' is not served"),
    ],
)
def test_bad_requests_get_one_clear_line(make_engine: Engines, body: str, status: int, message: str) -> None:
    async def talk(client: TestClient[Any, Any]) -> None:
        response = await client.post("/v1/completions", data=body)
        assert response.status == status
        assert message in (await response.json())["error"]["message"]

    over_http(make_engine("llama"), talk)


def test_a_broken_engine_tells_everyone_and_reports_ill(make_engine: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine("llama")

    def fail(*args: object) -> None:
        raise RuntimeError("out of memory")

    async def talk(client: TestClient[Any, Any]) -> None:
        monkeypatch.setattr(engine.executor.decoder, "run", fail)
        for body in ({"prompt": PROMPT}, {"prompt": PROMPT, "stream": True}):
            response = await client.post("/v1/completions", json=body)
            assert "out of memory" in await response.text()
        assert (await client.get("/health")).status == 503

    over_http(engine, talk)


def test_neutral_parameters_of_the_protocol_are_accepted() -> None:
    call = parse_call(
        b'{"prompt": "a", "n": 1, "top_p": 1.0, "stop": null, "logprobs": null, "user": "x", "seed": null}'
    )
    assert (call.max_tokens, call.temperature, call.stream) == (16, 1.0, False)


def test_text_of_a_tokenizer_comes_whole_though_characters_span_tokens(tmp_path: Path) -> None:
    codec = TextCodec.of_folder(write_tiny_model(tmp_path))
    text = "naïve 🙂 déjà vu, Grüße"
    tokens = codec.encode(text)
    assert len(tokens) == len(text.encode()), "a byte a token"
    stream = TextStream(codec)
    pieces = [stream.push(token, last=i == len(tokens) - 1) for i, token in enumerate(tokens)]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    with pytest.raises(InputError, match="not Unicode"):
        codec.encode("half a pair \ud83d")
    unfinished = TextStream(codec)
    assert unfinished.push(codec.encode("ï")[0], last=True) == "\ufffd"
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        TextCodec.of_folder(tmp_path)


def test_the_profiler_measures_a_served_model(make_engine: Engines) -> None:
    """The client that 'melange profile --url' uses takes every answer as sound: token counts, stamps, usage."""
    from melange.profiler.client import CompletionsClient, Endpoint
    from melange.profiler.engine import engine_version, served_models
    from melange.profiler.load import Size
    from melange.profiler.runner import ServerRequest

    async def talk(client: TestClient[Any, Any]) -> None:
        endpoint = Endpoint(url=str(client.make_url("/")), model="tiny", headers={})
        async with CompletionsClient(endpoint) as profiler:
            size = Size(input_tokens=20, output_tokens=9)
            record = await profiler.complete([7] * 20, size, began_s=profiler.clock())
        assert record.error is None
        assert (record.input_tokens, record.output_tokens) == (20, 9)
        assert record.token_s is not None
        assert len(record.token_s) == 9
        url = endpoint.url.rstrip("/")
        name, _ = await asyncio.to_thread(engine_version, url, {})
        assert ServerRequest(url=url, gpu="L4").key("tiny", name or "").engine == "nanoflow"
        assert await asyncio.to_thread(served_models, url, {}) == {"tiny": 256}

    over_http(make_engine("llama"), talk)


def test_help_names_examples_and_every_option() -> None:
    runner = CliRunner()
    overview = runner.invoke(nanoflow, ["--help"])
    assert all(name in overview.output for name in (*COMMANDS, "Examples:"))
    text = runner.invoke(nanoflow, ["serve", "--help"]).output
    command = nanoflow.get_command(None, "serve")  # type: ignore[arg-type]
    assert command is not None
    assert "Examples:" in text
    assert all(parameter.help for parameter in command.params)  # type: ignore[attr-defined]


def test_the_command_serves_until_interrupted(tmp_path: Path) -> None:
    """A folder without weights, two tensor-parallel processes, a free port; an interrupt ends all of it with code 0."""
    write_tiny_model(tmp_path / "tiny")
    arguments = ["nanoflow", "serve", "--model", str(tmp_path / "tiny"), "--random-weights", "--dtype", "fp32"]
    arguments += ["--tp", "2", "--port", "0", "--batch-tokens", "64", "--max-requests", "8", "--kv-memory-gib", "0.05"]
    server = subprocess.Popen(
        [sys.executable, "-m", "melange", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        assert "KV cache" in server.stderr.readline()
        url = server.stderr.readline().removeprefix("listening on ").strip()

        async def ask() -> Any:
            async with aiohttp.ClientSession() as session:
                body = {"prompt": "hello", "max_tokens": 5, "temperature": 0, "ignore_eos": True}
                async with session.post(f"{url}/v1/completions", json=body) as response:
                    return await response.json()

        answer = asyncio.run(ask())
        assert answer["usage"]["completion_tokens"] == 5
        assert answer["model"] == "tiny"
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=60)
        assert (server.returncode, out, err) == (0, "", "")
    finally:
        server.kill()
        server.wait()


def test_without_torch_there_is_one_line_with_the_command_that_installs_it() -> None:
    arguments = ["nanoflow", "serve", "--model", "llama-3-8b"]
    code = f"import sys; sys.modules['torch'] = None; from melange.cli.main import main; main({arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "melange: the NanoFlow engine needs the package torch; pip install '.[nanoflow]'\n"


@pytest.mark.parametrize(
    ("package", "purpose"),
    [("aiohttp", "serving over HTTP"), ("tokenizers", "reading the model's tokenizer")],
)
def test_a_missing_package_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, purpose: str
) -> None:
    write_tiny_model(tmp_path / "tiny")
    monkeypatch.delitem(sys.modules, "melange.nanoflow.runtime.server")
    monkeypatch.setitem(sys.modules, package, None)
    result = CliRunner().invoke(nanoflow, ["serve", "--model", str(tmp_path / "tiny"), "--random-weights"])
    assert isinstance(result.exception, MissingExtraError)
    assert str(result.exception) == f"{purpose} needs the package {package}; pip install '.[nanoflow]'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "llama-9"], "unknown model 'llama-9'"),
        (["--model", "./absent"], "no such model folder"),
        (["--model", "llama-3-8b", "--device", "cuda"], "CUDA device 0 was asked for"),
        (["--model", "llama-3-8b", "--tp", "3"], "do not divide by tp 3"),
        (["--model", "llama-3-8b", "--batch-tokens", "100", "--max-requests", "100"], "let the batch exceed"),
        (["--model", "llama-3-8b", "--pipeline", "absent.json"], "absent.json"),
        (["--model", "llama-3-8b", "--kv-memory-gib", "-1"], "kv_memory_gib is -1"),
    ],
)
def test_bad_usage_is_one_line_and_starts_nothing(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(nanoflow, ["serve", *arguments])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
