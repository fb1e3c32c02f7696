"""PaperSet: the hardware and model figures that the NanoFlow paper's tables assume (``nanoflow-paper``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import yaml

from melange.catalog.hardware import Catalog, Gpu
from melange.catalog.models import Model
from melange.files.shipped import data_path
from melange.nanoflow.costs import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperSet:
    """GPUs and models by name, and per GPU the achievable GEMM rate, in TFLOPS, where the paper implies one."""

    catalog: Catalog
    gemm_tflops: Mapping[str, float]

    def device(self, gpu: str, *, gpus: int = 1) -> Device:
        found = self.catalog.gpu(gpu)
        return Device.of(found, gpus=gpus, gemm_tflops=self.gemm_tflops.get(found.name))


def load_paper_set() -> PaperSet:
    """Read ``profiles/catalog/nanoflow-paper.yaml``."""
    path = data_path("profiles/catalog/nanoflow-paper.yaml")
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    gpus = {
        name: Gpu(
            name=name,
            memory_gib=row["memory_gb"] * 1e9 / 2**30,
            bandwidth_gb_s=row["bandwidth_gb_s"],
            tflops={"fp16": row["dense_fp16_tflops"]},
            interconnect="NVLink",
            interconnect_gb_s=row["network_gb_s_both_ways"] / 2,
            source=data["source"],
        )
        for name, row in data["gpus"].items()
    }
    models = {name: Model(name=name, **row, source=data["source"]) for name, row in data["models"].items()}
    gemm = {name: row["gemm_tflops"] for name, row in data["gpus"].items() if "gemm_tflops" in row}
    return PaperSet(catalog=Catalog(gpus=gpus, models=models), gemm_tflops=MappingProxyType(gemm))
