"""Secrets are masked wherever they are named, formed or known as such; what only sounds like one is kept."""

from __future__ import annotations

import pytest

from melange.serving.secrets import masked, masked_args, secrets_of, shown

SECRET = "Zq7-planted.9"


@pytest.mark.parametrize(
    "args",
    [
        ("--api-key", SECRET), (f"--api-key={SECRET}",), ("--api-key", SECRET, SECRET, "--port", "1"),
        ("--hf-token", SECRET), ("--hf_token", SECRET), ("--token", SECRET), ("--admin-key", SECRET),
        ("--ssl-keyfile-password", SECRET), ("--aws-secret-access-key", SECRET), ("--credentials", SECRET),
        ("--API-KEY", SECRET), (f"HF_TOKEN={SECRET}",), ("--env", f"OPENAI_API_KEY={SECRET}"),
        ("--kv-transfer-config", f'{{"kv_connector": "x", "api_key": "{SECRET}"}}'),
        ("--kv-transfer-config", f'{{"extra": {{"auth_token": "{SECRET}"}}}}'),
        ("--url", f"http://user:{SECRET}@host/path"), ("--url", f"https://host/v1?api_key={SECRET}&x=1"),
        ("--header", f"Authorization: Bearer {SECRET}"),
    ],
    ids=str,
)  # fmt: skip
def test_secrets_of_arguments_are_masked(args):
    kept = masked_args(args)
    assert len(kept) == len(args)
    assert not any(SECRET in arg for arg in kept)
    assert any("***" in arg for arg in kept)
    assert SECRET not in masked(" ".join(args), secrets_of(args))


@pytest.mark.parametrize(
    "args",
    [
        ("--max-num-batched-tokens", "2048"), ("--tokenizer", "meta-llama/Llama-3.1-8B"), ("--kv-cache-dtype", "fp8"),
        ("--max-tokens", "12"), ("--tokenizer-mode", "auto"), ("--ssl-keyfile", "key.pem"), ("--port", "8000"),
        ("--skip-tokenizer-init",), ("--return-tokens-as-token-ids",), ("--max-model-len=8k",), ("--seed", "-1"),
        ("--rope-scaling", '{"rope_type": "dynamic", "factor": 2.0}'), ("--model", "./tiny"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_secret_is_kept(args):
    assert masked_args(args) == args
    assert secrets_of(args) == ()
    assert masked(" ".join(args)) == " ".join(args)


@pytest.mark.parametrize(
    "text",
    [
        f"non-default args: {{'api_key': ['{SECRET}'], 'port': 1}}", f"HTTP 500: Authorization: Bearer {SECRET}",
        f'{{"headers": {{"authorization": "Bearer {SECRET}"}}}}', f"export HF_TOKEN={SECRET}; x",
        f"vllm serve m --api-key {SECRET} --port 1", f"api_key: {SECRET}", f'x-api-key: "{SECRET}"',
    ],
)  # fmt: skip
def test_secrets_in_what_engines_print_are_masked(text):
    assert SECRET not in masked(text)


def test_known_secrets_are_masked_wherever_they_stand():
    assert masked(f"so {SECRET}, said it", [SECRET]) == "so ***, said it"
    assert masked("hf_abcdefghij and sk-abcdefghij") == "*** and ***"
    assert secrets_of(("--api-key", "a1", "b2", "--hf-token=c3", "--port", "1")) == ("a1", "b2", "c3")


def test_what_others_wrote_is_short_and_moves_no_cursor():
    assert shown("a\x1b[2Jb\nc\r\td\x00") == "a\\x1b[2Jb c d\\x00"
    assert len(shown("x" * 10_000)) == 200
