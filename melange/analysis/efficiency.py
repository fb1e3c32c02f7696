"""Cost efficiency: tokens per dollar by size, and what fleets would cost if fractions of a GPU could be rented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.files.shown import short_repr
from melange.planning.choices import Choices
from melange.planning.planner import choices_of, prepare
from melange.planning.spec import WorkloadSpec

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CostEfficiency:
    """Tokens per dollar (T/$ of arXiv 2404.14527, section 4) of each config at its profiled sizes.

    ``input_tokens``: (n,) and ``output_tokens``: (m,), the union of the configs' profiled sizes. ``tokens_per_usd``:
    config -> (n, m), input and output tokens of one replica at its highest rate, per USD of its price; 0 = cannot
    meet the SLO there, NaN = not measured.
    """

    input_tokens: FloatArray
    output_tokens: FloatArray
    tokens_per_usd: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        for array in self.tokens_per_usd.values():
            array.setflags(write=False)
        object.__setattr__(self, "tokens_per_usd", MappingProxyType(dict(self.tokens_per_usd)))

    def advantage(self, config: str, other: str) -> FloatArray:
        """(n, m) (T/$ of ``config`` - T/$ of ``other``) / T/$ of ``config``: a fraction, negative where other has more.

        Figure 3b of the paper is this of A10G over A100: its percentages are relative to the A10G on both sides. NaN
        where one is not measured or gives none.
        """
        ours, theirs = self._of(config), self._of(other)
        known = (ours > 0) & (theirs > 0)
        return np.where(known, 1 - theirs / np.where(known, ours, 1.0), np.nan)

    def best(self) -> list[list[str | None]]:
        """(n, m) the config with the most tokens per dollar; None where none is known to serve."""
        names = list(self.tokens_per_usd)
        stack = np.nan_to_num(np.stack([self.tokens_per_usd[name] for name in names]), nan=0.0)
        top = stack.argmax(axis=0)
        served = stack.max(axis=0) > 0
        return [
            [names[top[i, j]] if served[i, j] else None for j in range(len(self.output_tokens))]
            for i in range(len(self.input_tokens))
        ]

    def _of(self, config: str) -> FloatArray:
        if config not in self.tokens_per_usd:
            raise InputError(f"no config {config!r}", fix=f"there are {', '.join(self.tokens_per_usd)}")
        return self.tokens_per_usd[config]

    def __repr__(self) -> str:
        n, m = len(self.input_tokens), len(self.output_tokens)
        return short_repr("CostEfficiency", f"tokens per USD of {', '.join(self.tokens_per_usd)} at {n} x {m} sizes")

    def to_frame(self) -> DataFrame:
        """One row a size.

        Index: ``input_tokens``, ``output_tokens``. Columns: ``<config>_tokens_per_usd`` (0 = cannot meet the SLO, NaN =
        not measured), and ``best``, the config with the most (None where none serves).
        """
        import pandas as pd

        names = ["input_tokens", "output_tokens"]
        index = pd.MultiIndex.from_product([self.input_tokens, self.output_tokens], names=names)
        columns = {f"{name}_tokens_per_usd": table.ravel() for name, table in self.tokens_per_usd.items()}
        best = pd.Series([name for row in self.best() for name in row], index=index, dtype=object)
        return pd.DataFrame(columns, index=index).assign(best=best)


@dataclass(frozen=True, slots=True, kw_only=True)
class FractionalCosts:
    """What a workload would cost per hour if fractions of a replica could be rented, no limit applying.

    ``mixed_usd_per_hour`` sends each bucket to the config that serves it cheapest; ``single_usd_per_hour`` maps a GPU
    type to its cost alone, None where it cannot serve every bucket.
    """

    mixed_usd_per_hour: float
    single_usd_per_hour: Mapping[str, float | None]

    @property
    def savings(self) -> float | None:
        """The mix's share saved on the cheapest single type: what comparative advantage alone is worth."""
        costs = [cost for cost in self.single_usd_per_hour.values() if cost is not None]
        return 1 - self.mixed_usd_per_hour / min(costs) if costs else None


def cost_efficiency(spec: WorkloadSpec) -> CostEfficiency:
    """Tokens per dollar of every config that a workload could rent, at its SLO and prices; owned machines are left out.

    InputError where nothing is rented.
    """
    choices = choices_of(spec)
    tables = [choices.profile.configs[config.key] for config in choices.configs]
    inputs = np.unique(np.concatenate([table.input_tokens for table in tables]))
    outputs = np.unique(np.concatenate([table.output_tokens for table in tables]))
    tokens = inputs[:, None] + outputs[None, :]
    prices = _replica_prices(choices)
    result = {}
    for c, (config, table) in enumerate(zip(choices.configs, tables, strict=True)):
        if config.instance.owned:
            continue
        rate = np.full(tokens.shape, np.nan)
        rate[np.ix_(np.searchsorted(inputs, table.input_tokens), np.searchsorted(outputs, table.output_tokens))] = (
            table.max_rate_rps
        )
        result[config.name] = rate * tokens * 3600 / prices[c]
    if not result:
        raise InputError("every machine of the workload is owned: there are no dollars to count tokens by")
    return CostEfficiency(input_tokens=inputs, output_tokens=outputs, tokens_per_usd=result)


def fractional_costs(spec: WorkloadSpec) -> FractionalCosts:
    """The workload's cost without whole GPUs; raises InputError where a bucket can be served by no config.

    Sizes that no config serves in time, as far as they may be late, are taken at their rate without the limit.
    """
    case = prepare(spec.for_windows(None))
    load, late = case.problem.load, case.problem.lateness
    if late is not None:
        load = np.where(np.isfinite(load).any(axis=1, keepdims=True), load, late.load)
    prices = np.broadcast_to(_replica_prices(case.choices), load.shape)
    usd = np.multiply(load, prices, out=np.full(load.shape, np.inf), where=np.isfinite(load))
    single: dict[str, float | None] = {}
    for gpu in dict.fromkeys(case.choices.gpus):
        columns = [c for c, other in enumerate(case.choices.gpus) if other == gpu]
        cost = float(usd[:, columns].min(axis=1).sum())
        single[gpu] = cost if np.isfinite(cost) else None
    return FractionalCosts(mixed_usd_per_hour=float(usd.min(axis=1).sum()), single_usd_per_hour=single)


def _replica_prices(choices: Choices) -> FloatArray:
    """(n_configs,) USD per hour of one replica: its GPUs' part of the instance."""
    return np.array([c.instance.price_usd_per_hour * c.tp / c.instance.gpus for c in choices.configs])
