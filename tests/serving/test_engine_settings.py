from __future__ import annotations

import pytest

from melange import InputError
from melange.catalog.hardware import load_catalog
from melange.files.records import from_plain, to_plain
from melange.serving.engine_settings import VLLM_0_2, EngineSettings, chosen_settings, default_settings


def test_engine_settings_are_checked_and_survive_a_round_trip():
    assert from_plain(EngineSettings, to_plain(VLLM_0_2), "settings") == VLLM_0_2
    with pytest.raises(InputError, match="memory_fraction"):
        EngineSettings(memory_fraction=1.5)
    with pytest.raises(InputError, match="unknown key 'speed'"):
        from_plain(EngineSettings, {"speed": 1}, "settings")


def test_what_vllm_picks_depends_on_the_gpu_and_the_version():
    catalog = load_catalog()
    picked = {gpu: default_settings(catalog.gpu(gpu)).max_num_seqs for gpu in ("L4", "A100-80GB", "H100")}
    assert picked == {"L4": 256, "A100-80GB": 256, "H100": 1024}
    assert default_settings(catalog.gpu("H100"), version="0.2.7") is VLLM_0_2
    assert default_settings(catalog.gpu("H100"), "nanoflow").name == "nanoflow"


@pytest.mark.parametrize(
    "values", [{"max_num_seqs": 0}, {"reserved_gib": -1.0}, {"kv_cache_tokens": 8}, {"max_model_len_tokens": 1}]
)
def test_settings_that_no_engine_has_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        EngineSettings(**values)


def test_of_budget_and_sequences_what_is_not_chosen_gives_way():
    usual = EngineSettings()  # 256 sequences, 2048 tokens
    narrow = chosen_settings(usual, max_batched_tokens=64)
    assert (narrow.max_batched_tokens, narrow.max_num_seqs) == (64, 64)
    many = chosen_settings(usual, max_num_seqs=4096)
    assert (many.max_batched_tokens, many.max_num_seqs) == (4096, 4096)
    assert chosen_settings(usual, max_batched_tokens=64, max_num_seqs=8).max_num_seqs == 8
