from __future__ import annotations

import pytest

from melange import InputError
from melange.catalog.hardware import load_catalog
from melange.serving.config import ConfigKey
from melange.serving.engine_args import engine_args, option_value, sequences_of, settings_from_args, token_budget_of
from melange.serving.engine_settings import chosen_settings, default_settings

L4 = load_catalog().gpu("L4")


def test_both_ways_to_write_an_argument():
    assert option_value(["--a", "1", "--b=2"], "--b") == "2"
    assert option_value(["--a", "1"], "-a", "--a") == "1"
    assert option_value(["--a"], "--a") is None
    assert option_value(["--ab", "1"], "--a") is None


def test_what_the_arguments_say_and_what_the_engine_chooses():
    args = ["--max-num-seqs", "64", "--max-model-len=8k", "--gpu-memory-utilization", "0.5"]
    settings = settings_from_args([*args, "--kv-cache-dtype", "fp8_e5m2"], gpu=L4)
    assert (settings.max_num_seqs, settings.max_model_len_tokens) == (64, 8000)
    assert (settings.memory_fraction, settings.kv_bytes_per_element) == (0.5, 1.0)
    assert settings.max_batched_tokens == default_settings(L4).max_batched_tokens
    assert not settings_from_args(["--no-enable-chunked-prefill"], gpu=L4).chunked_prefill
    assert settings_from_args(["--max-model-len", "2K"], gpu=L4).max_model_len_tokens == 2048
    assert settings_from_args(["--max-model-len", "auto"], gpu=L4) == default_settings(L4)


def test_an_iteration_holds_a_token_of_every_sequence():
    assert settings_from_args(["--max-num-seqs", "4096"], gpu=L4).max_batched_tokens == 4096


def test_what_is_no_number_is_refused():
    with pytest.raises(InputError, match="--max-num-seqs is 'many'"):
        settings_from_args(["--max-num-seqs", "many"], gpu=L4)


def test_a_configuration_is_told_what_it_chooses_and_no_more():
    plain = ConfigKey("m", "L4", 1, "bf16", "vllm")
    assert engine_args(plain) == ()
    told = engine_args(plain._replace(tp=2, kv_dtype="fp8", max_batched_tokens=512, max_num_seqs=64))
    assert (option_value(told, "--tensor-parallel-size"), option_value(told, "--kv-cache-dtype")) == ("2", "fp8")
    assert (token_budget_of(told), sequences_of(told)) == (512, 64)
    assert sequences_of(()) is None
    settings = settings_from_args(told, gpu=L4)
    assert settings == chosen_settings(default_settings(L4), kv_dtype="fp8", max_batched_tokens=512, max_num_seqs=64)
