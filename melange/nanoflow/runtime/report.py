"""GpuReport: what was measured on one GPU beside what was predicted, as JSON and as markdown; needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from melange.files.text import write_atomic
from melange.nanoflow.operation_times import OperationTimes
from melange.nanoflow.pipeline import Pipeline
from melange.nanoflow.runtime.overlap_samples import OverlapSample
from melange.perfmodel.interference import Interference

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way of running the batch. Times are of one layer, in seconds; None where not predicted or not measured.

    ``prediction`` says what the prediction rests on; ``not_run`` why nothing was measured. ``difference`` is the
    largest deviation of a logit from the first arm's, relative to the largest logit.
    """

    name: str
    splits: tuple[int, ...]
    prediction: str
    predicted_s: float | None
    measured_s: float | None
    difference: float | None = None
    not_run: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    """Everything that one run on a GPU found out. ``facts`` describe device, software and what was run, in words."""

    facts: Mapping[str, str]
    times: OperationTimes
    samples: tuple[OverlapSample, ...]
    interference: Interference
    pipeline: Pipeline
    arms: tuple[Arm, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "facts": dict(self.facts),
            "operation_times": self.times.to_dict(),
            "overlap_samples": [asdict(sample) for sample in self.samples],
            "interference": self.interference.to_dict(),
            "pipeline": self.pipeline.to_dict(),
            "arms": [asdict(arm) | {"splits": list(arm.splits)} for arm in self.arms],
            "notes": list(self.notes),
        }

    def write(self, folder: str | Path) -> tuple[Path, ...]:
        """Write report.md, report.json and the three inputs of 'melange nanoflow search' and 'serve'; their paths."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        contents = {
            "operation-times.yaml": _yaml(self.times.to_dict()),
            "interference.yaml": _yaml(self.interference.to_dict()),
            "pipeline.json": _json(self.pipeline.to_dict()),
            "report.json": _json(self.to_dict()),
            "report.md": render_markdown(self),
        }
        for name, content in contents.items():
            write_atomic(target / name, content)
        return tuple(target / name for name in contents)


def render_markdown(report: GpuReport) -> str:
    """The report for readers: facts, arms, interference, operation times."""
    parts = [
        f"# NanoFlow on {report.times.gpu}",
        _table(("", ""), report.facts.items()),
        "## Four ways to run the same batch",
        "Milliseconds a layer. Speed-up is over the first arm, as measured here.",
        _arms(report.arms),
        *(f"- {note}" for note in report.notes),
        "## Interference",
        "Each row: two kernels at once, each as a share of its own speed alone.",
        _samples(report.samples),
        "The table that the search used, P(R) at the share R that the GEMM gives up:",
        _table(("R", "P(R)"), [(f"{share:.1f}", f"{reached:.2f}") for share, reached in report.interference.memory]),
        "## Operations alone",
        "Milliseconds a layer at the operation's own tokens.",
        _operations(report.times),
    ]
    return "\n\n".join(parts) + "\n"


def _arms(arms: Sequence[Arm]) -> str:
    base = arms[0].measured_s
    rows = []
    for arm in arms:
        speed_up = "-" if base is None or arm.measured_s is None else f"{base / arm.measured_s:.2f}x"
        measured = _ms(arm.measured_s) if arm.not_run is None else f"not run: {arm.not_run}"
        error = "-"
        if arm.measured_s is not None and arm.predicted_s is not None:
            error = f"{100 * (arm.predicted_s / arm.measured_s - 1):+.0f}%"
        splits = " + ".join(str(end - start) for start, end in zip((0, *arm.splits), arm.splits, strict=False))
        difference = "-" if arm.difference is None else f"{arm.difference:.1e}"
        predicted = f"{_ms(arm.predicted_s)} ({arm.prediction})"
        rows.append((arm.name, splits, predicted, measured, error, speed_up, difference))
    return _table(("arm", "tokens", "predicted", "measured", "prediction off by", "speed-up", "logits differ by"), rows)


def _samples(samples: Iterable[OverlapSample]) -> str:
    rows = [
        (sample.how, f"{sample.gemm:.2f}", f"{sample.other:.2f}", f"{sample.gemm + sample.other:.2f}")
        for sample in samples
    ]
    return _table(("decode attention on", "GEMM keeps", "attention reaches", "sum"), rows)


def _operations(times: OperationTimes) -> str:
    rows = [(kind, f"{tokens:g}", _ms(seconds)) for kind, points in times.points.items() for tokens, seconds in points]
    return _table(("operation", "tokens", "ms"), rows)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.3f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _json(plain: dict[str, Any]) -> str:
    return json.dumps(plain, indent=2) + "\n"


def _yaml(plain: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None)
    return text
