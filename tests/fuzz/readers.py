"""Every reader of a file, with a good sample and a quick command; and every command, for its options' values."""

from __future__ import annotations

import gzip
import io
import json
import random
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from fuzz.harness import Main, rng_of, run_main, try_command
from fuzz.mutations import NUMBERS, WORDS, mutate

from melange.cli.main import main
from melange.cli.main import melange as root
from melange.files.shipped import data_path

SLO = ("--slo-tpot-ms", "120", "--tpot-definition", "decode")
WORKLOAD = """\
version: 1
name: small
model: llama-2-7b
slo: {tpot_ms: 120, tpot_definition: e2e_per_token, statistic: mean}
rate_rps: 4
sizes:
  input_edges_tokens: [25, 500]
  output_edges_tokens: [25, 250]
  representative: upper_edge
  buckets:
  - {input_tokens_max: 25, output_tokens_max: 25, share: 0.4, mean_input_tokens: 8.5, mean_output_tokens: 12}
  - {input_tokens_max: 25, output_tokens_max: 250, share: 0.2}
  - {input_tokens_max: 500, output_tokens_max: 25, share: 0.2}
  - {input_tokens_max: 500, output_tokens_max: 250, share: 0.2}
profiles: {set: melange-2024/llama-2-7b, assume_slo: true, reason: a test}
prices: paper-2024
fleet: {L4: {}, A10G: {max: 5}, A100-80GB: {}}
headroom: 0.0
"""
METRICS = "".join(
    f"vllm:request_{what}_tokens_{row} {value}\n"
    for what, scale in (("prompt", 10), ("generation", 1))
    for row, value in (
        (f'bucket{{le="{10 * scale}",model_name="m"}}', 50),
        (f'bucket{{le="{20 * scale}",model_name="m"}}', 100),
        ('bucket{le="+Inf",model_name="m"}', 100),
        ('sum{model_name="m"}', 1000 * scale),
        ('count{model_name="m"}', 100),
    )
)
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
    "rope_scaling": {"rope_type": "linear", "factor": 2.0},
}
RELEASE = {
    "gpu_info": {
        "A10G": {"cost": 1.01, "tputs": [[5.0, 0.5], [2.0, 0.25]]},
        "A100": {"cost": 3.67, "tputs": [[8.0, 2.0], [6.0, 1.5]]},
    },
    "workload_distribution": [[0.5, 0.25], [0.15, 0.1]],
    "total_request_rate": 6.0,
    "slice_factor": 2,
}
AIBRIX = {
    "gpu": "L4",
    "cost": 0.7,
    "tputs": [[3, 2, 1], [2, 1, 0.5]],
    "indexes": [[32, 64], [100, 200, 500]],
    "created": 1700000000.5,
    "e2e": [[1, 2, 3], [2, 3, 4]],
    "ttft": [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]],
    "tpot": [[0.01, 0.02, 0.03], [0.01, 0.02, 0.03]],
    "slos": {"percentile": 99, "ttft": 0.5},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One kind of file: ``arguments`` name it as ``file``, beside it may lie others that stay whole."""

    name: str
    file: str
    sample: Callable[[], bytes]
    arguments: tuple[str, ...]
    structured: bool = False
    packed: bool = False
    outputs: tuple[str, ...] = ()

    def files(self, seed: int | None) -> dict[str, bytes]:
        """What lies in a trial's folder; None: the sample as it is."""
        rng = rng_of(self.name, seed or 0)
        content = self.sample()
        if seed is not None and not (self.packed and rng.randrange(3)):
            content = mutate(content, rng, structured=self.structured)
            return {self.file: gzip.compress(content, mtime=0) if self.packed else content}
        if self.packed:
            content = gzip.compress(content, mtime=0)
        return {self.file: content if seed is None else mutate(content, rng, structured=False)}

    def complaint(self, seed: int, run: Main = main) -> str | None:
        """What is wrong with how the command takes the sample mutated by this seed, or None."""
        return try_command(self.arguments, self.files(seed), outputs=self.outputs, run=run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The values of one command's options, after arguments with which it does something quickly."""

    name: str
    arguments: tuple[str, ...]
    command: click.Command

    def given(self, seed: int) -> list[str]:
        """The arguments with one or two options more, of mutated values."""
        rng = rng_of(self.name, seed)
        given = list(self.arguments)
        names = [p for p in self.command.params if isinstance(p, click.Option) and p.opts[0] not in UNTRIED]
        for option in rng.sample(names, min(len(names), rng.choice((1, 1, 2)))):
            given += [option.opts[0]] if option.is_flag else [option.opts[0], _value(option, rng)]
        return given

    def complaint(self, seed: int, run: Main = main) -> str | None:
        """What is wrong with how the command takes the options of this seed, or None."""
        return try_command(self.given(seed), _beside(), outputs=None, run=run)


Target = Reader | Options

# Options that go to other machines, processes or servers: their place is tests/fuzz/chaos.py and tests/profiler.
UNTRIED = ("--on", "--jobs", "--url", "--plot", "--vllm")
# Commands that measure or serve; chaos runs them.
ELSEWHERE = ("profile check", "nanoflow measure")


def _value(option: click.Option, rng: random.Random) -> str:
    words = [word for word in (*NUMBERS, *WORDS) if "\0" not in word]
    spelled = [
        "p95=",
        "p95=nan",
        "p0=1",
        "H100=",
        "H100:8=-1",
        "H100=1e400",
        "2xH100",
        "0xL4",
        "1e9xL4",
        "L4:0",
        "\udcff",
        ",",
        "1:2",
        "a=b,c",
    ]
    spelled += [
        "99999999999",
        "gamma:1e300",
        "gamma:0",
        "poisson",
        "trace",
        "mean",
        "peak",
        "1:inf",
        "1,1",
        "8,4",
        "2026-01-01",
        ".",
    ]
    if isinstance(option.type, click.Choice):
        spelled += [str(choice) for choice in option.type.choices] * 3
    return rng.choice((rng.choice(words), rng.choice(spelled)))


@cache
def _beside() -> dict[str, bytes]:
    """What the options' commands read."""
    return {reader.file: reader.files(None)[reader.file] for reader in readers()}


@cache
def _plan() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "w.yaml").write_text(WORKLOAD)
        outcome = run_main(["solve", "w.yaml", "--plan", "p.json"], folder)
        assert outcome.code == 0, outcome
        return (folder / "p.json").read_bytes()


@cache
def _published() -> bytes:
    return data_path("profiles/melange-2024/llama-2-7b/published.jsonl").read_bytes()


def _few_published() -> bytes:
    return b"".join(_published().splitlines(keepends=True)[:37])


def _measured() -> bytes:
    key = {"model": "llama-2-7b", "gpu": "L4", "tp": 1, "precision": "fp16", "engine": "vllm"}
    lines: list[dict[str, Any]] = [{"record": "header", "schema_version": 2, **key, "facts": {"driver": "560"}}]
    for concurrency in (1, 4, 16):
        spread = {"mean": 0.02 * concurrency**0.5, "p50": 0.02, "p95": 0.05, "p99": 0.1 * concurrency**0.5}
        lines.append(
            {"record": "point", **key, "input_tokens": 100, "output_tokens": 50, "cached_tokens": 0.0, "loop": "closed"}
            | {
                "achieved_rps": 1.0 * concurrency,
                "tpot_decode_s": spread,
                "ttft_s": spread,
                "samples": 200,
                "failures": 0,
            }
            | {"concurrency": concurrency, "duration_s": 20.0, "saturated": False, "valid": True, "source": "measured"}
        )
    return _lines(lines)


def _version_1() -> bytes:
    key = {"model": "llama-2-7b", "gpu": "L4", "tp": 1, "precision": "fp16", "engine": "vllm"}
    point = {
        "input_tokens": 100,
        "output_tokens": 50,
        "achieved_rps": 2.0,
        "tpot_decode_s": {"mean": 0.02},
        "samples": 9,
    }
    return _lines(
        [{"record": "header", "schema_version": 1, "model": "m"}, *({"record": "point", **key, **point},) * 3]
    )


def _lines(records: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def _json(plain: Any) -> Callable[[], bytes]:
    return lambda: json.dumps(plain, indent=1).encode()


def _text(text: str) -> Callable[[], bytes]:
    return lambda: text.encode()


def _zip(text: str) -> Callable[[], bytes]:
    def sample() -> bytes:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo("aws.csv", date_time=(2026, 11, 26, 3, 0, 0)), text)
        return data.getvalue()

    return sample


def _shipped(name: str) -> Callable[[], bytes]:
    return lambda: data_path(name).read_bytes()


def _trace_rows() -> list[dict[str, Any]]:
    rng = random.Random(5)
    return [
        {"time": i * 0.5, "input_tokens": rng.randrange(1, 900), "output_tokens": rng.randrange(1, 400)}
        for i in range(60)
    ]


def _trace_csv() -> bytes:
    rows = _trace_rows()
    return "\n".join([",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows), ""]).encode()


def _trace_jsonl() -> bytes:
    return _lines(
        [{"timestamp": 500 * i, "input_length": 10 + i, "output_length": 5, "hash_ids": [i]} for i in range(40)]
    )


@cache
def _trace_parquet() -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    sink = io.BytesIO()
    rows = _trace_rows()
    parquet.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), sink)
    return sink.getvalue()


VLLM = {
    "date": "20260131-120000",
    "request_rate": 2.0,
    "max_concurrency": None,
    "completed": 4,
    "failed": 1,
    "duration": 2.0,
    "total_input_tokens": 400,
    "total_output_tokens": 40,
    "request_throughput": 2.0,
    "mean_ttft_ms": 100.0,
    "median_ttft_ms": 90.0,
    "p99_ttft_ms": 200.0,
    "mean_tpot_ms": 20.0,
    "input_lens": [100, 100, 100, 100],
    "output_lens": [10, 10, 10, 10],
    "ttfts": [0.1, 0.1, 0.1, 0.2],
    "itls": [[0.02] * 9] * 4,
}
_STATS = {"successful": {"mean": 80.0, "percentiles": {"p50": 70.0, "p99": 90.0}}}
GUIDELLM = {
    "benchmarks": [
        {
            "config": {"strategy": {"type_": "poisson", "rate": 3.0}},
            "duration": 30.0,
            "metrics": {
                "request_totals": {"successful": 90, "errored": 2, "incomplete": 1, "total": 93},
                **dict.fromkeys(("requests_per_second", "prompt_token_count", "output_token_count"), _STATS),
                **dict.fromkeys(("request_latency", "time_to_first_token_ms", "time_per_output_token_ms"), _STATS),
            },
        }
    ]
}
GPUS = """\
version: 1
gpus:
  Mine: {memory_gib: 40, bandwidth_gb_s: 1000, tflops: {fp16: 200}, interconnect: PCIe, interconnect_gb_s: 32}
"""
GPUHUNT = """\
instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags,cpu_arch
m5.large,us-east-1,0.096,2,8.0,0,,,False,,,,x86
g6.xlarge,us-east-1,0.8048,4,16.0,1,L4,24.0,False,,nvidia,,x86
g6.xlarge,us-east-1,0.35,4,16.0,1,L4,24.0,True,,nvidia,,x86
p4de.24xlarge,us-east-1,27.44705,96,1152.0,8,A100,80.0,False,,nvidia,,x86
g4ad.xlarge,us-east-1,0.3785,4,16.0,1,V520,,False,,amd,,x86
"""
REFRESH = ("gpus", "refresh")
MERGED = ("-o", "all-new.jsonl")
ESTIMATE = ("estimate", "--grid", "250x100", *SLO)
IMPORT = ("--gpu", "L4", "--model", "llama-2-7b")
TRACE = ("--model", "llama-2-7b", "--rate", "4", *SLO, "-o", "w-new.yaml")


@cache
def readers() -> tuple[Reader, ...]:
    """All readers of files."""

    def reader(name: str, file: str, sample: Callable[[], bytes], *arguments: str, **more: Any) -> Reader:
        given = tuple(argument.replace("FILE", file) for argument in arguments)
        return Reader(name=name, file=file, sample=sample, arguments=given, **more)

    found = [
        reader("workload, shown", "w.yaml", _text(WORKLOAD), "workload", "show", "FILE", "-o", "json"),
        reader("workload, solved", "w2.yaml", _text(WORKLOAD), "solve", "FILE", "--time-limit", "5"),
        reader(
            "workload, exported",
            "w3.yaml",
            _text(WORKLOAD),
            "aibrix",
            "export",
            "FILE",
            "--gpu",
            "L4",
            "-o",
            "a-new.json",
            outputs=("a-new.json",),
        ),
        reader(
            "plan, simulated",
            "p.json",
            _plan,
            "simulate",
            "FILE",
            "--requests",
            "50",
            "--replications",
            "2",
            structured=True,
        ),
        reader("plan, its rate", "p2.json", _plan, "capacity", "FILE", "--program-only", structured=True),
        reader(
            "plan, exported",
            "p3.json",
            _plan,
            "aibrix",
            "export",
            "FILE",
            "--gpu",
            "A10G",
            "-o",
            "a-new.json",
            structured=True,
            outputs=("a-new.json",),
        ),
        reader("measurements", "m.jsonl", _measured, "profile", "show", "FILE", *SLO, structured=True),
        reader(
            "measurements, version 1",
            "m1.jsonl",
            _version_1,
            "profile",
            "show",
            "FILE",
            *SLO,
            "-o",
            "json",
            structured=True,
        ),
        reader("measurements, published", "pub.jsonl", _published, "limits", "FILE", structured=True),
        reader(
            "measurements, merged",
            "m2.jsonl",
            _measured,
            "profile",
            "merge",
            *MERGED,
            "FILE",
            structured=True,
            outputs=("all-new.jsonl",),
        ),
        reader(
            "measurements, fitted",
            "m3.jsonl",
            _few_published,
            "calibrate",
            "FILE",
            "--folds",
            "2",
            "-o",
            "c-new.yaml",
            structured=True,
            outputs=("c-new.yaml",),
        ),
        reader("trace, CSV", "t.csv", _trace_csv, "workload", "from-trace", "FILE", *TRACE, outputs=("w-new.yaml",)),
        reader(
            "trace, JSONL",
            "t.jsonl",
            _trace_jsonl,
            "workload",
            "from-trace",
            "FILE",
            *TRACE,
            structured=True,
            outputs=("w-new.yaml",),
        ),
        reader(
            "trace, gzip",
            "t.csv.gz",
            _trace_csv,
            "workload",
            "from-trace",
            "FILE",
            *TRACE,
            packed=True,
            outputs=("w-new.yaml",),
        ),
        reader(
            "metrics",
            "metrics.txt",
            _text(METRICS),
            "workload",
            "from-metrics",
            "FILE",
            "--rate",
            "4",
            *TRACE[:2],
            *SLO,
            "-o",
            "w-new.yaml",
            outputs=("w-new.yaml",),
        ),
        reader(
            "model config",
            "config.json",
            _json(MODEL),
            *ESTIMATE,
            "--model-config",
            "FILE",
            "--gpu",
            "A100-80GB",
            structured=True,
        ),
        reader(
            "GPUs", "gpus.yaml", _text(GPUS), *ESTIMATE, "--model", "llama-2-7b", "--gpu-file", "FILE", "--gpu", "Mine"
        ),
        reader(
            "calibration",
            "c.yaml",
            _shipped("profiles/calibrations/llama-2-7b-published.yaml"),
            *ESTIMATE,
            "--model",
            "llama-2-7b",
            "--gpu",
            "L4",
            "--calibration",
            "FILE",
        ),
        reader("prices", "prices.csv", _shipped("profiles/catalog/prices.csv"), "gpus", "--prices", "FILE"),
        reader(
            "prices of gpuhunt", "aws.csv", _text(GPUHUNT), *REFRESH, "--catalog", "FILE", "--read-on", "2026-11-26"
        ),
        reader("prices of gpuhunt, zipped", "catalog.zip", _zip(GPUHUNT), *REFRESH, "--catalog", "FILE"),
        reader("release config", "release.json", _json(RELEASE), "solve", "FILE", structured=True),
        reader(
            "AIBrix",
            "aibrix.json",
            _json(AIBRIX),
            "aibrix",
            "import",
            "FILE",
            "--model",
            "llama-2-7b",
            "-o",
            "m-new.jsonl",
            structured=True,
            outputs=("m-new.jsonl",),
        ),
        reader(
            "vLLM results",
            "vllm.json",
            _json(VLLM),
            "profile",
            "import",
            "FILE",
            *IMPORT,
            "-o",
            "m-new.jsonl",
            structured=True,
            outputs=("m-new.jsonl",),
        ),
        reader(
            "GuideLLM results",
            "guidellm.json",
            _json(GUIDELLM),
            "profile",
            "import",
            "FILE",
            *IMPORT,
            "-o",
            "m-new.jsonl",
            structured=True,
            outputs=("m-new.jsonl",),
        ),
        reader(
            "operation times",
            "times.yaml",
            _shipped("profiles/nanoflow/a100-llama-3-8b-times.yaml"),
            "nanoflow",
            "search",
            "--times",
            "FILE",
            "--batch",
            "1024",
            "--decode",
            "384",
            "--time-limit",
            "3",
        ),
        reader(
            "interference",
            "interference.yaml",
            _shipped("profiles/nanoflow/interference-authors.yaml"),
            "nanoflow",
            "search",
            "--times",
            "a100-llama-3-8b",
            "--interference",
            "FILE",
            "--batch",
            "1024",
            "--decode",
            "384",
            "--time-limit",
            "3",
        ),
        reader(
            "pipeline",
            "pipeline.json",
            _pipeline,
            "nanoflow",
            "serve",
            "--model",
            "./absent",
            "--pipeline",
            "FILE",
            structured=True,
        ),
    ]
    if find_spec("pyarrow") is not None:
        found.append(
            reader(
                "trace, Parquet",
                "t.parquet",
                _trace_parquet,
                "workload",
                "from-trace",
                "FILE",
                *TRACE,
                outputs=("w-new.yaml",),
            )
        )
    return tuple(found)


@cache
def _pipeline() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        search = [
            "nanoflow",
            "search",
            "--times",
            "a100-llama-3-8b",
            "--batch",
            "1024",
            "--decode",
            "384",
            "-o",
            "p.json",
        ]
        outcome = run_main(search, Path(name))
        assert outcome.code == 0, outcome
        return (Path(name) / "p.json").read_bytes()


# A command, and arguments with which it does something quickly. A command that is in neither list fails a test.
QUICK: dict[str, tuple[str, ...]] = {
    "solve": ("w.yaml", "--time-limit", "5"),
    "simulate": ("p.json", "--requests", "50", "--replications", "2"),
    "capacity": ("w.yaml", "--own", "L4=2", "--program-only"),
    "sweep": ("w.yaml", "--rates", "1,2", "--time-limit", "5", "--jobs", "1"),
    "gpus list": (),
    "gpus refresh": ("--catalog", "aws.csv", "--read-on", "2026-11-26"),
    "workload from-metrics": ("metrics.txt", "--rate", "4", *TRACE[:2], *SLO, "-o", "w-new.yaml"),
    "workload from-trace": ("t.csv", *TRACE),
    "workload show": ("w.yaml",),
    "profile import": ("vllm.json", *IMPORT, "-o", "m-new.jsonl"),
    "profile merge": (*MERGED, "m.jsonl"),
    "profile show": ("m.jsonl", *SLO),
    "profile run": ("--dry-run", "--model", "m", "--gpu", "L4", "--input-tokens", "16", "--output-tokens", "8", *SLO),
    "estimate": ("--grid", "250x100", "--model", "llama-2-7b", "--gpu", "L4"),  # an SLO would exclude a load
    "calibrate": ("m3.jsonl", "--folds", "2", "-o", "c-new.yaml"),
    "limits": ("m.jsonl",),
    "schema": ("plan",),
    "nanoflow analyse": ("--model", "llama-3-8b", "--gpu", "A100-80GB", "--input", "1024", "--output", "512"),
    "nanoflow search": ("--times", "a100-llama-3-8b", "--batch", "1024", "--decode", "384", "--time-limit", "3"),
    "nanoflow serve": ("--model", "./absent"),
    "aibrix export": ("w.yaml", "--gpu", "L4", "-o", "a-new.json"),
    "aibrix import": ("aibrix.json", "--model", "llama-2-7b", "-o", "m-new.jsonl"),
}


def commands(group: click.Command = root, path: tuple[str, ...] = ()) -> dict[str, click.Command]:
    """Every command of the command line by its whole name."""
    if not isinstance(group, click.Group):
        return {" ".join(path): group}
    found: dict[str, click.Command] = {}
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        found |= commands(command, (*path, name))
    return found


@cache
def targets() -> tuple[Target, ...]:
    """Every reader, and the options of every command."""
    options = [
        Options(name=f"options of {name}", arguments=(*name.split(), *QUICK[name]), command=command)
        for name, command in commands().items()
        if name not in ELSEWHERE
    ]
    return (*readers(), *options)
