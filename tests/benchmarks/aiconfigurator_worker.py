"""NVIDIA's aiconfigurator answers: JSON lines of points on stdin, JSON lines of its estimates on stdout, in order.

Run by bench_aiconfigurator.py under the Python that has aiconfigurator (0.12), which need not be Mélange's. A point
gives ``like`` (the model whose config.json aiconfigurator ships) and ``changes`` to that config, ``experts`` (whether
it is a mixture), ``system``, ``backend``, ``tp``, ``quantisation`` (its modes by what they are of), ``load``,
``input_tokens``, ``output_tokens``, ``sequences`` (the most that run at once) and ``rate_rps`` (or null). An answer
gives ``estimates``: two of output_tokens_per_s, ttft_s and tpot_s, or ``refused``: why there are none.

The first estimate has the budget of prompt tokens that its command ``estimate`` takes (one prompt an iteration), the
second that of the budgets its sweep tries with the highest throughput. Batches that run alone are its static mode,
which knows no such budget: there both are the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiconfigurator_core
from aiconfigurator.sdk.backends.factory import get_backend
from aiconfigurator.sdk.config import RuntimeConfig
from aiconfigurator.sdk.config_builders import build_model_config
from aiconfigurator.sdk.inference_session import InferenceSession
from aiconfigurator.sdk.models import get_model, resolve_context_fmha_by_data, resolve_nvfp4_for_system
from aiconfigurator.sdk.perf_database import get_database_view, get_latest_database_version

CONFIGS = Path(aiconfigurator_core.__file__).parent / "model_configs"
MOST_SEQUENCES = 1024  # of its own sweep: beyond that it has too few measurements, it says
SWEPT_TOKENS = 8192
SWEEP_STEP = 512
MOST_REASON = 70  # characters


class NoEstimateError(Exception):
    """Why a point has no estimate."""


@functools.cache
def model_path(like: str, changes: str) -> str:
    """A folder with the config.json of a model that aiconfigurator ships, or of one that is like it but for sizes."""
    found = json.loads((CONFIGS / f"{like.replace('/', '--')}_config.json").read_text(encoding="utf-8"))
    found.get("text_config", found).update(json.loads(changes))
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1]))
    (folder / "config.json").write_text(json.dumps(found), encoding="utf-8")
    quantisation = CONFIGS / f"{like.replace('/', '--')}_hf_quant_config.json"
    if quantisation.exists():
        (folder / "hf_quant_config.json").write_bytes(quantisation.read_bytes())
    return str(folder)


@functools.cache
def session_of(engine: str) -> InferenceSession:
    """The session of an engine, made as its command ``estimate`` makes it."""
    job = json.loads(engine)
    system, backend = job["system"], job["backend"]
    version = get_latest_database_version(system=system, backend=backend)
    if version is None:
        raise NoEstimateError(f"no measurements of {backend} on {system}")
    database = get_database_view(system, backend, version, allow_missing_data=False, database_mode="SILICON")
    experts = (job["tp"], 1) if job["experts"] else (None, None)
    config = build_model_config(job["tp"], 1, 1, *experts, **job["quantisation"])
    path = model_path(job["like"], json.dumps(job["changes"]))
    resolve_context_fmha_by_data(config, path, database, backend, is_context_role=True)
    resolve_nvfp4_for_system(config, system, path, backend_name=backend)
    return InferenceSession(get_model(path, config, backend), database, get_backend(backend))


@dataclasses.dataclass(frozen=True)
class Engine:
    """A session under requests of one size."""

    session: InferenceSession
    input_tokens: int
    output_tokens: int

    def runtime(self, sequences: int) -> RuntimeConfig:
        """So many requests at once."""
        return RuntimeConfig(isl=self.input_tokens, osl=self.output_tokens, batch_size=sequences)

    def summary(self, sequences: int, tokens: int | None = None) -> Any:
        """Its answer for so many requests at once, and so many prompt tokens an iteration."""
        return self.session.run_agg(self.runtime(sequences), ctx_tokens=tokens or self.input_tokens)

    def fits(self, sequences: int) -> bool:
        """Whether their cache fits by its count."""
        found = self.summary(sequences)
        return not (found.check_oom() or found.check_kv_cache_oom())

    def most(self, sequences: int) -> int:
        """The largest number of at most these that fits."""
        low, high = 0, max(min(sequences, MOST_SEQUENCES), 1)
        if self.fits(high):
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.fits(middle) else (low, middle)
        if not low:
            raise NoEstimateError("it does not fit")
        return low

    def least(self, sequences: int, rate_rps: float) -> int:
        """The smallest number of at most these that serves a rate; all of them where none does."""
        low, high = 0, sequences
        while high - low > 1:
            middle = (low + high) // 2
            reached = self.summary(middle).get_result_dict()["seq/s"] >= rate_rps
            low, high = (low, middle) if reached else (middle, high)
        return high

    def swept(self, sequences: int) -> list[int]:
        """Budgets of prompt tokens that its sweep tries without chunked prefill, where some requests still decode."""
        step = max(self.input_tokens, SWEEP_STEP)
        tried = {self.input_tokens, 2 * self.input_tokens, *range(step, SWEPT_TOKENS + 1, step)}
        return [tokens for tokens in sorted(tried) if sequences - -(-tokens // self.input_tokens) >= 1]

    def estimate(self, summary: Any) -> dict[str, float]:
        """What a summary says of the whole engine, in seconds."""
        found = summary.get_result_dict()
        return {
            "output_tokens_per_s": float(found["seq/s"]) * self.output_tokens,
            "ttft_s": float(found["ttft"]) / 1e3,
            "tpot_s": float(found["tpot"]) / 1e3,
        }


def answer(job: dict[str, Any]) -> list[dict[str, float]]:
    """Both estimates of a point."""
    names = ("like", "changes", "experts", "system", "backend", "tp", "quantisation")
    session = session_of(json.dumps({name: job[name] for name in names}))
    engine = Engine(session, job["input_tokens"], job["output_tokens"])
    if job["load"] == "batch":
        static = session.run_static(engine.runtime(job["sequences"]), "static")
        if static.check_oom() or static.check_kv_cache_oom():
            raise NoEstimateError("the batch does not fit")
        return [engine.estimate(static)] * 2
    sequences = engine.most(job["sequences"])
    if job["rate_rps"] is not None:
        sequences = engine.least(sequences, job["rate_rps"])
    plain = engine.estimate(engine.summary(sequences))
    others = [engine.estimate(engine.summary(sequences, tokens)) for tokens in engine.swept(sequences)]
    return [plain, max([plain, *others], key=lambda found: found["output_tokens_per_s"])]


def reason(error: Exception) -> str:
    """An error in short, without the point's own figures and the places of files."""
    text = (
        re.split(r"\{|\(|\n|, which| at /", str(error))[0]
        .removeprefix("perf database error: ")
        .strip(" :")[:MOST_REASON]
    )
    return text if isinstance(error, NoEstimateError) else f"{type(error).__name__}: {text}"


def main() -> None:
    """Answer every line of stdin; the folder to keep configs in is the argument."""
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                found: dict[str, Any] = {"estimates": answer(json.loads(line))}
        except Exception as error:  # whatever it refuses with is its reason
            found = {"refused": reason(error)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
