"""Fidelity of the load generator: 256 concurrent streams at 10,000 tokens/s against a server that stamps each token.

Prints p50, p99 and the maximum of |client gap - server gap| for streams that are staggered, and for streams in
lockstep, whose 256 tokens all leave in the same instant and must queue in any client; and what the generator says of
itself. The server, too, is scheduled in real time where permitted: it plays a device that nothing else disturbs.

Run: python tests/benchmarks/bench_load_generator.py [seconds]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

import melange.profiler.client as client_module
from melange.profiler.client import CompletionsClient, Endpoint
from melange.profiler.engine import free_port, is_healthy
from melange.profiler.load import Load, LoadRun, Size
from melange.profiler.loadgen import run_load

STREAMS, TOKENS_PER_S = 256, 10_000
GAP_S = STREAMS / TOKENS_PER_S
SERVER = """
import asyncio
from melange.profiler.loadgen import real_time
from melange.testing.fault_server import FaultServer
with real_time(1):
    asyncio.run(FaultServer(first_s=1.0, gap_s={gap}, streams={streams}).serve({port}))
"""


async def loaded(url: str, tokens: int) -> LoadRun:
    load = Load(size=Size(16, tokens), concurrency=STREAMS, max_s=600, min_requests=STREAMS)
    async with CompletionsClient(Endpoint(url=url, model="fault", headers={})) as client:
        return await run_load(client, load, stop=lambda run: False)


def differences(reads: Sequence[Sequence[tuple[float, bytes]]]) -> np.ndarray:
    """|client gap - server gap| of every pair of neighbouring tokens, in seconds; the server's stamp is the text."""
    found = []
    for stream in reads:
        text = b"".join(data for _, data in stream)
        server = np.array([float(part.split(b" ", 1)[0]) for part in text.split(b'"text":"')[1:]])
        client = np.repeat([at for at, _ in stream], [data.count(b"}]}\n\n") for _, data in stream])[: len(server)]
        found.append(np.abs(np.diff(client) - np.diff(server)))
    return np.concatenate(found)


def measure(name: str, streams: int, tokens: int) -> None:
    port = free_port()
    code = SERVER.format(gap=GAP_S, streams=streams, port=port)
    reads: list[Sequence[tuple[float, bytes]]] = []
    understand = client_module._understand

    def spy(stream: Sequence[tuple[float, bytes]]) -> object:
        reads.append(stream)
        return understand(stream)

    with subprocess.Popen([sys.executable, "-c", code]) as server:
        try:
            while not is_healthy(f"http://127.0.0.1:{port}"):
                time.sleep(0.1)
            client_module._understand = spy  # type: ignore[assignment]
            run = asyncio.run(loaded(f"http://127.0.0.1:{port}", tokens))
        finally:
            client_module._understand = understand
            server.kill()
    good = [record for record in run.records if record.ok]
    rate = sum(len(r.token_s) - 1 for r in good) / np.mean([r.token_s[-1] - r.token_s[0] for r in good])
    p50, p99, worst = 1000 * np.quantile(differences(reads), (0.5, 0.99, 1.0))
    health = run.health
    print(
        f"{name}: {len(good)} streams, {rate:,.0f} tokens/s; |client gap - server gap| p50 {p50:.3f} ms, "
        f"p99 {p99:.3f} ms, max {worst:.1f} ms; client busy {100 * health.busy_share:.0f}% "
        f"(ceiling {health.ceiling_chunks_per_s:,.0f} chunks/s), loop lag p99 {1000 * health.lag_p99_s:.2f} ms"
    )


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    measure("staggered", STREAMS, int(seconds / GAP_S))
    measure("lockstep", 1, int(seconds / GAP_S))
