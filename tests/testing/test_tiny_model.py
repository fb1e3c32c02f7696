from __future__ import annotations

import json

import pytest

from melange.testing.tiny_model import MID, TINY, write_tiny_model


def content(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("model", [TINY, MID], ids=lambda model: model.name)
def test_the_folder_describes_the_model(tmp_path, model):
    folder = write_tiny_model(tmp_path / "not" / "yet", model)
    config = content(folder, "config.json")
    assert config["head_dim"] * config["num_attention_heads"] == config["hidden_size"] == model.hidden
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (model.layers, model.intermediate)
    assert config["max_position_embeddings"] == content(folder, "tokenizer_config.json")["model_max_length"] == 4096
    vocabulary = content(folder, "tokenizer.json")["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(config["vocab_size"])) == list(range(model.vocabulary))


def test_special_tokens_have_one_number_in_all_files(tmp_path):
    folder = write_tiny_model(tmp_path)
    config, generation = content(folder, "config.json"), content(folder, "generation_config.json")
    tokenizer, names = content(folder, "tokenizer.json"), content(folder, "tokenizer_config.json")
    numbers = {token["content"]: token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    assert numbers == {text: tokenizer["model"]["vocab"][text] for text in numbers}
    for name in ("bos_token", "eos_token", "pad_token"):
        assert numbers[names[name]] == config.get(f"{name}_id", generation[f"{name}_id"]) == generation[f"{name}_id"]


def test_text_is_a_token_a_byte_and_comes_back(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(write_tiny_model(tmp_path) / "tokenizer.json"))
    text = "na\u00efve \U0001f642\n\ttwo  words, \u00ed"
    tokens = tokenizer.encode(text).ids
    assert len(tokens) == len(text.encode())
    assert tokenizer.decode(tokens) == text
    assert tokenizer.get_vocab_size() == TINY.vocabulary
