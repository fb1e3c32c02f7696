"""GPUs by their figures and models by their config.json."""

from __future__ import annotations

import json

import pytest

from melange.catalog.described import extended_catalog, model_from_config, model_named, read_gpus
from melange.catalog.hardware import load_catalog
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
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "int8"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "int8"),
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
        ({"kv_lora_rank": 512}, "latent attention"),
        ({"model_type": "gpt_neox"}, "no gated MLP"),
        ({"model_type": "bert"}, "no decoder"),
        ({"torch_dtype": "float7"}, "dtype is 'float7'"),
        ({"quantization_config": {"quant_method": "odd"}}, "odd.*not modelled"),
        ({"n_routed_experts": 64}, "shared experts"),
        ({"num_experts": 60, "shared_expert_intermediate_size": 5632}, "shared experts"),
        ({"num_experts": 8, "mlp_only_layers": [0]}, "layers that differ"),
    ],
)
def test_impossible_or_uncovered_configurations_are_refused(tmp_path, changes, problem):
    with pytest.raises(InputError, match=problem) as caught:
        model_from_config(write(tmp_path, {**LLAMA, **changes}))
    assert caught.value.file is not None


@pytest.mark.parametrize("text", ['{"a":' * 20_000, '{"hidden_size": ' + "9" * 5000 + "}", "[]", "3"])
def test_what_no_parser_survives_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="not a model configuration"):
        model_from_config(tmp_path / "config.json")


def test_harmless_keys_of_sparse_models_are_accepted(tmp_path):
    plain = {"mlp_only_layers": [], "decoder_sparse_step": 1, "shared_expert_intermediate_size": None}
    assert model_from_config(write(tmp_path, {**LLAMA, **plain})).parameters == pytest.approx(8.03e9, rel=1e-3)


def test_a_file_that_is_not_json_names_its_line(tmp_path):
    (tmp_path / "config.json").write_text('{\n"hidden_size": }')
    with pytest.raises(InputError, match="not JSON") as caught:
        model_from_config(tmp_path / "config.json")
    assert caught.value.line == 2


GPU = "gpus:\n  Mine:\n    memory_gib: 40\n    bandwidth_gb_s: 1000\n    tflops: {fp16: 200}\n    interconnect: PCIe\n"


def test_a_gpu_by_its_figures(tmp_path):
    (tmp_path / "gpus.yaml").write_text(GPU + "    interconnect_gb_s: 32\n")
    catalog = extended_catalog(load_catalog(), [tmp_path / "gpus.yaml"])
    assert catalog.gpu("mine").bandwidth_gb_s == 1000
    assert catalog.gpu("H100").name == "H100"


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        (GPU, "interconnect_gb_s is missing", 3),
        (GPU + "    interconnect_gb_s: 32\n    colour: green\n", "unknown figure 'colour'", 8),
        (GPU.replace("1000", "0") + "    interconnect_gb_s: 32\n", "bandwidth_gb_s is 0", 3),
        (GPU.replace("40", "much") + "    interconnect_gb_s: 32\n", "not a number", 3),
        (GPU.replace("1000", "true") + "    interconnect_gb_s: 32\n", "bandwidth_gb_s is not a number", 4),
        (GPU.replace("PCIe", "[1]") + "    interconnect_gb_s: 32\n", "interconnect is not a text", 6),
        (GPU.replace("{fp16: 200}", "200") + "    interconnect_gb_s: 32\n", "tflops is not rates", 5),
        (GPU.replace("{fp16: 200}", "{fp16: x}") + "    interconnect_gb_s: 32\n", "tflops is not rates", 5),
        (GPU + "    interconnect_gb_s: 32\n    aliases: [1]\n", "aliases is not a list of names", 8),
        ("gpus: {}\n", "describes no GPUs", 1),
    ],
)
def test_impossible_gpus_are_refused_at_their_line(tmp_path, text, problem, line):
    (tmp_path / "gpus.yaml").write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        read_gpus(tmp_path / "gpus.yaml")
    assert caught.value.line == line
