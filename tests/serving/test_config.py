from __future__ import annotations

import pytest

from melange import InputError, InstanceType
from melange.catalog.hardware import load_catalog
from melange.perfmodel.hardware import ModelledEngine
from melange.serving.config import ConfigKey, ServingConfig

EIGHT = InstanceType(name="p5.48xlarge", gpu="H100", gpus=8, memory_gib=80, price_usd_per_hour=55.0, provider="aws")


def test_offers_of_one_kind_share_a_key_and_nothing_else_does():
    dear, cheap = (
        ServingConfig(
            instance=InstanceType(name=name, gpu="H100", gpus=1, memory_gib=80, price_usd_per_hour=usd),
            model="llama-2-7b",
        )
        for name, usd in (("one", 3.0), ("other", 2.0))
    )
    assert dear.key == cheap.key == ConfigKey("llama-2-7b", "H100", 1, "fp16", "vllm")
    assert ServingConfig(instance=EIGHT, model="llama-2-7b", tp=2).key != dear.key
    modelled = ModelledEngine(model=load_catalog().model("llama-2-7b"), gpu=load_catalog().gpu("H100"))
    assert modelled.key == dear.key


def test_a_name_leaves_out_what_is_usual():
    def name(**values):
        return ServingConfig(instance=EIGHT, model="m", **values).name

    assert name() == name(precision="bf16") == "p5.48xlarge"
    assert name(tp=4, precision="fp8", engine="nanoflow") == "p5.48xlarge/tp4/fp8/nanoflow"
    assert name(kv_dtype="fp8", max_batched_tokens=512) == "p5.48xlarge/kv-fp8/bt512"
    assert name(max_num_seqs=64) == "p5.48xlarge/s64"
    assert name(max_batched_tokens=512, max_num_seqs=64, engine="nanoflow") == "p5.48xlarge/bt512/s64/nanoflow"


def test_keys_that_differ_in_a_choice_are_told_apart_and_sorted():
    plain = ConfigKey("m", "L4", 1, "fp16", "vllm")
    others = [plain._replace(max_batched_tokens=512), plain._replace(kv_dtype="fp8"), plain._replace(max_num_seqs=8)]
    others.append(plain)
    assert sorted(others, key=lambda key: key.order)[0] == plain
    assert "max_batched_tokens" not in plain.row()
    assert ConfigKey(**others[0].row()) == others[0]
    assert "bt512" in others[0].describe()
    assert "s8" in others[2].describe()
    assert others[2].choices == {"kv_dtype": "auto", "max_batched_tokens": None, "max_num_seqs": 8}


@pytest.mark.parametrize(
    "values",
    [
        {"tp": 16},
        {"tp": 0},
        {"precision": "fp7"},
        {"kv_dtype": "fp7"},
        {"max_num_seqs": 0},
        {"max_batched_tokens": 0},
        {"max_batched_tokens": 64, "max_num_seqs": 65},
    ],
)
def test_what_cannot_run_on_the_instance_is_refused(values):
    with pytest.raises(InputError):
        ServingConfig(instance=EIGHT, model="m", **values)
