"""GPUs by their figures."""

from __future__ import annotations

import pytest

from melange.catalog.described import extended_catalog, read_gpus
from melange.catalog.hardware import load_catalog
from melange.errors import InputError

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
