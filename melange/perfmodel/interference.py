"""Interference: what a memory- or network-bound kernel still reaches when it shares the device with a GEMM.

Profiled pairwise (arXiv 2408.12757, section 4.1.2): where the GEMM gives up the share R of its performance, the other
kernel reaches the share P(R) of its own. The table is an input: printed ones disagree, and a GPU's own measured table
replaces them.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import yaml

from melange.errors import InputError
from melange.files.documents import read_document
from melange.files.text import write_atomic

Resource = Literal["compute", "memory", "network"]
Curve = tuple[tuple[float, float], ...]
KEYS = ("version", "gpu", "source", "memory", "network")
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Interference:
    """P(R) per resource: ascending (R, P) pairs, R strictly between 0 and 1; both lie in (0, 1].

    Only the listed shares are known: nothing is interpolated. The whole device, R = 1, always reaches P = 1.
    An empty curve says that the kernel was never seen beside another: it then gets the device to itself.
    """

    gpu: str
    source: str
    memory: Curve = ()
    network: Curve = ()

    def __post_init__(self) -> None:
        for name in ("memory", "network"):
            object.__setattr__(self, name, _checked_curve(name, getattr(self, name)))

    def curves(self, *, collectives: bool = True) -> Mapping[Resource, Curve]:
        """Every (share, performance) choice per resource, the whole device included.

        A GEMM's performance is its share (that is R's definition), so its choices are what the others leave over:
        1 - R for each listed share, and 1 - R - R' where a memory- and a network-bound kernel run beside it
        (``collectives`` False: there are no network-bound ones).
        """
        memory, network = dict(self.memory), dict(self.network if collectives else ())
        given_up = {*memory, *network, *(a + b for a in memory for b in network)}
        left = {round(1 - share, 9) for share in given_up if share < 1 - 1e-6}
        return MappingProxyType(
            {
                "compute": tuple((share, share) for share in sorted({*left, 1.0})),
                "memory": (*self.memory, (1.0, 1.0)),
                "network": (*self.network, (1.0, 1.0)),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values as the YAML file holds them."""
        return {
            "version": VERSION,
            "gpu": self.gpu,
            "source": self.source,
            "memory": [list(pair) for pair in self.memory],
            "network": [list(pair) for pair in self.network],
        }


def read_interference(file: str | os.PathLike[str]) -> Interference:
    """The interference table of a YAML file: ``memory`` and ``network`` are lists of [R, P(R)].

    Raises InputError with file, line and column for unknown or missing keys and figures that cannot be.
    """
    document = read_document(file)
    for key in document.data:
        if key not in KEYS:
            raise document.error((key, "#key"), f"unknown key {key!r}", f"known keys: {', '.join(KEYS)}")
    for key in KEYS[:3]:
        if key not in document.data:
            raise document.error((), f"the key {key!r} is missing", f"give {', '.join(KEYS)}")
    if document.data["version"] != VERSION:
        raise document.error(("version",), f"version is {document.data['version']}", f"this reads version {VERSION}")
    for name in ("gpu", "source"):
        if not isinstance(document.data[name], str):
            raise document.error((name,), f"{name} is {document.data[name]!r}", "give it as text")
    curves: dict[str, Curve] = {}
    for name in ("memory", "network"):
        if not isinstance(document.data.get(name, []), list):
            raise document.error((name,), f"{name} is not a list of pairs", "give [[R, P(R)], ...]")
        try:
            curves[name] = tuple((float(share), float(reached)) for share, reached in document.data.get(name, ()))
            _checked_curve(name, curves[name])
        except InputError as error:
            raise document.error((name,), error.problem, error.fix) from None
        except (TypeError, ValueError, OverflowError):
            raise document.error((name,), f"{name} is not a list of pairs", "give [[R, P(R)], ...]") from None
    return Interference(gpu=document.data["gpu"], source=document.data["source"], **curves)


def write_interference(file: str | os.PathLike[str], table: Interference) -> None:
    """Write the YAML file that :func:`read_interference` reads."""
    write_atomic(file, yaml.safe_dump(table.to_dict(), sort_keys=False, default_flow_style=None))


def _checked_curve(name: str, curve: Curve) -> Curve:
    for share, reached in curve:
        if not (math.isfinite(share) and 0 < share < 1 and math.isfinite(reached) and 0 < reached <= 1):
            raise InputError(
                f"interference: {name} reaches {reached} where a GEMM gives up {share}",
                fix="give shares in (0, 1) and performances in (0, 1]",
            )
    for (low, worse), (high, better) in itertools.pairwise(curve):
        if high <= low or better < worse:
            raise InputError(
                f"interference: {name} goes from ({low:g}, {worse:g}) to ({high:g}, {better:g})",
                fix="let shares ascend and performances not fall",
            )
    return tuple((float(share), float(reached)) for share, reached in curve)
