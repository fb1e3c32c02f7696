from __future__ import annotations

import pytest

from melange import InputError
from melange.catalog.instances import InstanceType
from melange.serving.config import ServingConfig


def machine(**changes):
    values = {"name": "p5.48xlarge", "gpu": "H100", "gpus": 8, "price_usd_per_hour": 55.0, "memory_gib": 79.0}
    return InstanceType(**{**values, **changes})


def test_what_a_machine_goes_by():
    assert machine().key == "p5.48xlarge"
    assert machine(gpus=1).key == "H100"
    assert machine(key="H100@aws").key == "H100@aws"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "p5.48xlarge"),
        ({"tp": 4, "precision": "fp8"}, "p5.48xlarge/tp4/fp8"),
        ({"tp": 2, "precision": "bf16", "engine": "nanoflow"}, "p5.48xlarge/tp2/nanoflow"),
    ],
)
def test_a_config_names_what_is_not_at_its_default(changes, name):
    assert ServingConfig(instance=machine(), model="m", **changes).name == name


@pytest.mark.parametrize(
    "changes",
    [
        {"price_usd_per_hour": 0.0}, {"price_usd_per_hour": float("nan")}, {"price_usd_per_hour": float("inf")},
        {"price_usd_per_hour": -1.0}, {"gpus": 0}, {"memory_gib": 0.0}, {"memory_gib": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_machines_that_cannot_be(changes):
    with pytest.raises(InputError, match=r"instance p5\.48xlarge"):
        machine(**changes)


@pytest.mark.parametrize("changes", [{"tp": 16}, {"tp": 0}, {"precision": "fp12"}], ids=str)
def test_configs_that_cannot_be(changes):
    with pytest.raises(InputError):
        ServingConfig(instance=machine(), model="m", **changes)
