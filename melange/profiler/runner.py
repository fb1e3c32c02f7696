"""profile_engine: one whole profile run, from what was asked for to the capacities, everything stopped after it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from melange.catalog.hardware import load_catalog
from melange.catalog.model_config import model_shape
from melange.errors import InputError
from melange.measurements.file import Header, read_measurements
from melange.measurements.measurement import Measurement
from melange.profiler.answers import check_server_url
from melange.profiler.budget import Budget
from melange.profiler.engine import AttachedServer, Engine, VllmServer, local_device, running
from melange.profiler.journal import Journal, known_points
from melange.profiler.load import Load, Size
from melange.profiler.loadpoint import Subject
from melange.profiler.search import LONE_REQUESTS, POINT_S, REQUESTS, RESOLUTION, Capacity, SearchSettings, next_step
from melange.profiler.serving import (
    ASSUMED,
    DEFAULT_ENGINE,
    Serving,
    found_precision,
    probe,
    server_key,
    serving_facts,
    today,
)
from melange.profiler.session import Report, live_measure, profile
from melange.serving.config import ConfigKey
from melange.slo import Slo

TYPICAL_POINTS = 1.3  # a cell's load time over that of its longest load point, by the benchmark of the search


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRequest:
    """Which server: one to attach to (``url``), or one to start (``model``). None takes the default it documents."""

    url: str | None = None
    api_key_env: str | None = None
    model: str | None = None
    served_name: str | None = None
    vllm: str = "vllm"
    engine_args: tuple[str, ...] = ()
    engine_log: str | None = None
    gpu: str | None = None
    precision: str | None = None
    tp: int | None = None

    def __post_init__(self) -> None:
        if self.url is None and self.model is None:
            raise InputError("nothing to profile", fix="give --model to start vLLM, or --url to attach to a server")
        if self.url is not None:
            check_server_url(self.url)
        if self.url is not None and self.engine_args:
            raise InputError("engine arguments are for a server that is started here", fix="leave out --engine-args")

    @property
    def name(self) -> str | None:
        """What the model is called in the measurements; None until an attached server tells."""
        if self.served_name is not None:
            return self.served_name
        return None if self.model is None else self.model.rstrip("/").rsplit("/", 1)[-1]

    def engine(self, log: Path) -> Engine:
        """The server as an engine; ``log`` takes its output where it is started here."""
        if self.url is not None:
            return AttachedServer(url=self.url, model=self.model, api_key_env=self.api_key_env)
        log = log if self.engine_log is None else Path(self.engine_log)
        return VllmServer(
            model=self.model or "", served_name=self.name or "", args=self.engine_args, command=self.vllm, log=log
        )

    def key(self, model: str, engine: str = DEFAULT_ENGINE) -> ConfigKey:
        """What the measurements are filed under: the model and the engine as the server calls them."""
        gpu = self.gpu or (local_device().name if self.url is None else None)
        if gpu is None:
            raise InputError("the GPU of an attached server is unknown", fix="name it with --gpu")
        return server_key(
            self.name or model,
            gpu=gpu,
            engine=engine,
            args=self.engine_args,
            model_folder=self.folder,
            precision=self.precision,
            tp=self.tp,
        )

    @property
    def folder(self) -> Path | None:
        """The model's folder, where it is one on this machine."""
        return Path(self.model) if self.model is not None and Path(self.model).is_dir() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest(ServerRequest):
    """A profile run: the server, the sizes, the SLO, how finely, for how much, and where the results go."""

    slo: Slo = field(default_factory=Slo)
    input_tokens: tuple[int, ...] = (128, 512, 2000)
    output_tokens: tuple[int, ...] = (64, 256, 1000)
    cached_share: float = 0.0
    resolution: float = RESOLUTION
    point_seconds: float = POINT_S
    requests: int = REQUESTS
    max_concurrency: int = 256
    budget_minutes: float | None = None
    budget_usd: float | None = None
    usd_per_hour: float | None = None
    seed: int = 0
    output: str = "profile.jsonl"

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Input-major, ascending."""
        pairs = itertools.product(self.input_tokens, self.output_tokens)
        return tuple(Size(i, o, int(i * self.cached_share)) for i, o in pairs)

    @property
    def settings(self) -> SearchSettings:
        return SearchSettings(
            slo=self.slo,
            resolution=self.resolution,
            point_s=self.point_seconds,
            requests=self.requests,
            max_concurrency=self.max_concurrency,
            seed=self.seed,
        )

    def budget(self) -> Budget:
        """The limits, counted from now."""
        minutes = self.budget_minutes
        return Budget(
            limit_s=None if minutes is None else 60 * minutes,
            limit_usd=self.budget_usd,
            usd_per_hour=self.usd_per_hour,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run is expected to take: sizes, those finished already, seconds, dollars (None: price unknown).

    ``basis`` says where the seconds come from: the ``budget``, the ``model`` (what the performance model expects of
    every size left) or ``longest`` (nothing is known of some size, which then counts with the longest load points).
    ``expected_rps`` is the capacity that the model expects, by size; 0 where no load keeps the SLO.
    """

    sizes: tuple[Size, ...]
    finished: tuple[Capacity, ...]
    seconds: float
    usd: float | None
    basis: Literal["budget", "model", "longest"]
    expected_rps: Mapping[Size, float] = field(default_factory=dict)


def estimate(request: RunRequest) -> Estimate:
    """Plan, time and cost of a run, without touching a server; sizes finished in its file cost nothing."""
    finished, key = [], None
    if request.name is not None and (request.gpu or request.url is None):
        key = request.key(request.name)
    if Path(request.output).exists() and key is not None:
        points = known_points(read_measurements(request.output).points, key)
        for size in request.sizes:
            step = next_step(size, _of_size(points, size), request.settings)
            finished += [step] if isinstance(step, Capacity) else []
    done = {found.size for found in finished}
    left = [size for size in request.sizes if size not in done]
    expected = {} if key is None else _expectations(key, left, request.slo)
    budget = request.budget()
    seconds = sum(_cell_s(request, expected.get(size)) for size in left)
    basis: Literal["model", "longest"] = "model" if len(expected) == len(left) else "longest"
    limited = budget.left_s < seconds
    seconds = min(seconds, budget.left_s)
    usd = None if request.usd_per_hour is None else seconds / 3600 * request.usd_per_hour
    return Estimate(
        sizes=request.sizes,
        finished=tuple(finished),
        seconds=seconds,
        usd=usd,
        basis="budget" if limited else basis,
        expected_rps={size: found.rate_rps for size, found in expected.items()},
    )


class _Expectation(NamedTuple):
    """What the performance model expects of a size: its capacity, and the latency of a request alone on the engine."""

    rate_rps: float
    lone_s: float


def _cell_s(request: RunRequest, expected: _Expectation | None) -> float:
    """Seconds that a size takes: load points of so many requests as the search asks for, or single requests that fail.

    A size of which nothing is known takes load points of the longest time.
    """
    if expected is not None and expected.rate_rps <= 0:
        return min(request.point_seconds, LONE_REQUESTS * expected.lone_s)
    enough_s = math.inf if expected is None else request.settings.samples_needed / expected.rate_rps
    return TYPICAL_POINTS * min(request.point_seconds, enough_s)


def _expectations(key: ConfigKey, sizes: Sequence[Size], slo: Slo) -> dict[Size, _Expectation]:
    """Expectations by size; empty for a model or GPU that the catalog lacks."""
    from melange.perfmodel.estimate import rates_with_band, steady_state
    from melange.perfmodel.hardware import ModelledEngine
    from melange.serving.engine_settings import default_settings

    catalog = load_catalog()
    columns = np.array(sizes, float).reshape(-1, 3).T
    try:
        model, gpu = catalog.model(key.model), catalog.gpu(key.gpu)
        settings = default_settings(gpu, key.engine)
        modelled = ModelledEngine(model=model, gpu=gpu, tp=key.tp, precision=key.precision, settings=settings)
        rates = rates_with_band(modelled, slo, *columns).rate_rps
        lone_s = steady_state(modelled, *columns).clients(1.0).e2e_s
    except InputError:
        return {}
    return {
        size: _Expectation(rate, lone) for size, rate, lone in zip(sizes, rates.tolist(), lone_s.tolist(), strict=True)
    }


def _of_size(points: list[Measurement], size: Size) -> list[Measurement]:
    wanted = tuple(map(float, size))
    return [p for p in points if (p.input_tokens, p.output_tokens, p.cached_tokens) == wanted]


@contextmanager
def serving_engine(request: ServerRequest, log: Path) -> Iterator[tuple[Engine, Serving]]:
    """The asked-for server, up, probed, and stopped afterwards if it was started here."""
    engine = request.engine(log)
    with running(engine) as endpoint:
        yield engine, probe(endpoint)


def profile_engine(
    request: RunRequest,
    *,
    report: Report | None = None,
    predict: Callable[[Size], float | None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> tuple[Capacity, ...]:
    """Run a profile to its end and return the capacity of every size; see :func:`melange.profiler.session.profile`.

    ``warn`` takes what could not be found out about the server, and is then assumed or unchecked.
    InputError: bad settings, a measurements file that is in use or cannot be written, or no executable.
    EngineError: a server that does not start, cannot be reached, or answers no request.
    """
    settings, budget = request.settings, request.budget()
    output = Path(request.output)
    known = request.name
    if known is not None and (request.gpu is not None or request.url is None):
        with Journal(output, request.key(known), warn=warn):
            pass  # a file that cannot be used is found before an engine takes a minute to start
    with serving_engine(request, output.with_suffix(".engine.log")) as (engine, serving):
        key = request.key(serving.endpoint.model, serving.engine)
        for doubt in _doubts(request, serving, key):
            if warn is not None:
                warn(doubt)
        with Journal(output, key, warn=warn) as journal:
            journal.append_header(_header(request, engine, serving, key))
            return profile(
                request.sizes,
                settings,
                journal=journal,
                measure=live_measure(serving),
                subject=Subject(key=key, engine_version=serving.version, date=today()),
                budget=budget,
                check=engine.check,
                max_model_len=serving.max_model_len,
                predict=predict,
                report=report,
            )


def _header(request: RunRequest, engine: Engine, serving: Serving, key: ConfigKey) -> Header:
    command = engine.command_line()
    device = asdict(local_device()) if request.url is None else {}
    settings = asdict(request.settings)
    del settings["slo"]
    return Header(
        **key._asdict(),
        engine_version=serving.version,
        engine_command=None if command is None else tuple(command),
        max_model_len_tokens=serving.max_model_len,
        kv_cache=serving.kv_cache,
        model_shape=model_shape(request.model),
        slo=request.slo,
        facts={
            **serving_facts(serving, engine.describe(), today()),
            "device": {name: value for name, value in device.items() if value is not None},
            "precision_from": found_precision(key.model, request.engine_args, request.folder, request.precision)[1],
            "search": settings,
        },
    )


def _doubts(request: RunRequest, serving: Serving, key: ConfigKey) -> list[str]:
    doubts = []
    precision, source = found_precision(key.model, request.engine_args, request.folder, request.precision)
    if source == ASSUMED:
        doubts.append(f"nothing says the precision of {key.model}: {precision} is assumed; give it with --precision")
    if request.cached_share and not serving.tells_cached:
        doubts.append(
            "the server does not say how many prompt tokens it had in its prefix cache, so --cached-share is not "
            "checked; for vLLM add --enable-prompt-tokens-details to its arguments"
        )
    return doubts


def lone_load(size: Size, seconds: float, seed: int) -> Load:
    """A closed loop of one request at a time."""
    return Load(size=size, concurrency=1, max_s=seconds, min_requests=LONE_REQUESTS, seed=seed)
