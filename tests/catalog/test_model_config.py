"""Models by their config.json: what is counted, what is warned of, what is refused."""

from __future__ import annotations

import json

import pytest

from melange.catalog.hardware import load_catalog
from melange.catalog.model_config import model_from_config, model_named
from melange.errors import InputError

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}


def tensors(**group):
    return {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}}


def write(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path / "config.json"


@pytest.mark.parametrize(
    ("changes", "name", "active"),
    [
        ({}, "llama-3.1-8b", None),
        (
            {"num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000},
            "mixtral-8x7b",
            12.88e9,
        ),
    ],
)
def test_parameters_counted_from_the_shapes_are_the_published_ones(tmp_path, changes, name, active):
    model = model_from_config(write(tmp_path, {**LLAMA, **changes}))
    known = load_catalog().model(name)
    assert model.parameters == pytest.approx(known.parameters, rel=1e-3)
    assert model.active_parameters == pytest.approx(active or known.parameters, rel=1e-3)
    assert (model.kv_hidden, model.layers, model.experts) == (known.kv_hidden, known.layers, known.experts)
    assert model.name == tmp_path.name


@pytest.mark.parametrize(
    ("changes", "precision"),
    [
        ({"torch_dtype": "bfloat16"}, "bf16"),
        ({"dtype": "float32"}, "fp32"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "w8a16"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "w8a16"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, "nvfp4"),
        (tensors(weights={"num_bits": 8, "type": "int"}, input_activations={"num_bits": 8}), "int8"),
        (tensors(weights={"num_bits": 8, "type": "int"}, input_activations=None), "w8a16"),
        (tensors(weights={"num_bits": 8, "type": "float"}, input_activations=None), "w8a16"),
        (tensors(weights={"num_bits": 4, "type": "int"}), "int4"),
        (tensors(weights={"num_bits": 4, "type": "float", "group_size": 16}), "nvfp4"),
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
                }
            },
            "fp8",
        ),
    ],
)
def test_the_precision_is_the_checkpoints(tmp_path, changes, precision):
    assert model_from_config(write(tmp_path, {**LLAMA, **changes})).precision == precision


def test_an_awq_checkpoint_has_four_bit_weights(shared):
    model = model_from_config(shared / "cases" / "awq.json")
    assert (model.precision, model.name) == ("int4", "awq")


def test_a_model_is_named_by_alias_hub_id_or_file(tmp_path):
    catalog = load_catalog()
    assert model_named("meta-llama/Llama-3.1-8B-Instruct", catalog)[0].name == "llama-3.1-8b"
    file = write(tmp_path, LLAMA)
    assert model_named(str(file), catalog) == (model_from_config(file), file)
    assert model_named(tmp_path.name, catalog, tmp_path.parent)[1] == file
    with pytest.raises(InputError, match="did you mean"):
        model_named("meta-llama/Llama-3.1-9B", catalog)
    with pytest.raises(InputError, match=r"no\.json"):
        model_named("no.json", catalog)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"num_key_value_heads": 5}, "32 heads do not divide into 5 KV heads"),
        ({"kv_lora_rank": 512}, "qk_rope_head_dim is missing"),
        ({"model_type": "falcon"}, "layers of model_type 'falcon'"),
        ({"compress_ratios": [4]}, "not modelled"),
        ({"layer_types": ["odd"] * 32}, "layer_types names 'odd'"),
        ({"layer_types": ["full_attention"]}, "does not name each of the 32 layers"),
        ({"model_type": "bert"}, "no decoder"),
        ({"torch_dtype": "float7"}, "dtype is 'float7'"),
        ({"quantization_config": {"quant_method": "odd"}}, "odd.*not modelled"),
        ({"n_routed_experts": 64}, "num_experts_per_tok is missing"),
        ({"head_dim": 10**30}, "a number is too large"),
        ({"num_hidden_layers": 4, "layer_types": ["mamba"] * 4, "mamba_d_state": 16}, "keeps keys and values"),
    ],
)
def test_impossible_or_uncovered_configurations_are_refused(tmp_path, changes, problem):
    with pytest.raises(InputError, match=problem) as caught:
        model_from_config(write(tmp_path, {**LLAMA, **changes}))
    assert caught.value.file is not None


@pytest.mark.parametrize("text", ['{"a":' * 20_000, '{"hidden_size": ' + "9" * 5000 + "}", "[]", "3"])
def test_what_no_parser_survives_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"not readable JSON|no JSON object"):
        model_from_config(tmp_path / "config.json")


def test_harmless_keys_of_sparse_models_are_accepted(tmp_path):
    plain = {"mlp_only_layers": [], "decoder_sparse_step": 1, "shared_expert_intermediate_size": None}
    assert model_from_config(write(tmp_path, {**LLAMA, **plain})).parameters == pytest.approx(8.03e9, rel=1e-3)


def test_a_file_that_is_not_json_names_its_line(tmp_path):
    (tmp_path / "config.json").write_text('{\n"hidden_size": }')
    with pytest.raises(InputError, match="not valid JSON") as caught:
        model_from_config(tmp_path / "config.json")
    assert caught.value.line == 2


def counted(tmp_path, **changes):
    return model_from_config(write(tmp_path, {**LLAMA, **changes}))


def test_shared_experts_and_dense_layers_are_counted(tmp_path):
    plain = {"num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 1024}
    alike = counted(tmp_path, **plain)
    shared = counted(tmp_path, **plain, n_shared_experts=1)
    assert shared.parameters - alike.parameters == pytest.approx(32 * 3 * 4096 * 1024)
    first_dense = counted(tmp_path, **plain, first_k_dense_replace=2)
    assert first_dense.expert_layers == 30
    gained = 2 * (3 * 4096 * 14336 - 8 * 3 * 4096 * 1024 - 8 * 4096)
    assert first_dense.parameters - alike.parameters == pytest.approx(gained)
    gap = first_dense.parameters - first_dense.active_parameters
    assert gap == pytest.approx(30 * 6 * 3 * 4096 * 1024)


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"layer_types": ["sliding_attention", "full_attention"] * 16, "sliding_window": 128}, (16, 128)),
        ({"model_type": "gemma3_text", "sliding_window": 512, "sliding_window_pattern": 6}, (27, 512)),
        ({"model_type": "gemma2", "sliding_window": 4096}, (16, 4096)),
        ({"model_type": "mistral", "sliding_window": 4096}, (32, 4096)),
        ({"model_type": "mistral", "sliding_window": None}, (0, 0)),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, (0, 0)),
        (
            {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 28},
            (4, 4096),
        ),
        ({"model_type": "llama4_text", "attention_chunk_size": 8192}, (24, 8192)),
        ({"model_type": "phi3", "sliding_window": 262144}, (0, 0)),
    ],
)
def test_windows_as_each_family_writes_them(tmp_path, changes, window):
    model = counted(tmp_path, **changes)
    assert (model.window_layers, model.window_tokens) == window


def test_latent_attention_keeps_one_vector_for_all_heads(tmp_path):
    model = counted(
        tmp_path, kv_lora_rank=512, q_lora_rank=1536, qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128
    )
    assert (model.kv_elements, model.head_size, model.value_size) == (576, 192, 128)
    assert model.kv_bytes_per_token() == 2 * 576 * 32


def test_linear_layers_keep_a_state(tmp_path):
    model = counted(
        tmp_path,
        full_attention_interval=4,
        linear_num_key_heads=16,
        linear_num_value_heads=32,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
    )
    assert (model.linear_layers, model.kept_layers) == (24, 8)
    assert model.state_bytes == 24 * (4 * 32 * 128 * 128 + 2 * (2 * 2048 + 4096) * 3)


def test_what_changes_cost_and_is_not_understood_is_named(tmp_path):
    assert counted(tmp_path).unread == ()
    model = counted(tmp_path, vision_config={"depth": 3}, per_layer_width=7, rope_theta=1e4, odd_zero=0)
    assert model.unread == ("per_layer_width", "vision_config")


def test_a_precision_beside_the_config_counts(tmp_path):
    (tmp_path / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    assert counted(tmp_path).precision == "fp8"


def test_parts_for_text_of_models_that_see(tmp_path):
    outer = {"model_type": "seeing", "text_config": LLAMA, "vision_config": {"depth": 27}, "torch_dtype": "bfloat16"}
    model = model_from_config(write(tmp_path, outer))
    assert (model.precision, model.unread) == ("bf16", ("vision_config",))
