"""Compares ``RealtimeService`` with a raw ``socketio.AsyncClient``, in one run and against one server.

::

    python tests/performance/benchmark.py [--smoke] [--json] [--only NAME ...] [--check]

Each round measures the two sides one after the other, each in a process of its own on one core, with the
server on the other; in a smoke run one process of each side does all benchmarks. A figure is the median over
the rounds; a ratio is ours divided by the baseline: the raw client, or for ``monitored_...`` this library
with nothing that watches it. Absolute figures are this machine's; they have targets only where there is
nothing to compare with.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from attrs import asdict, field, frozen
from benchmark_catalog import BENCHMARKS, Benchmark

HERE: Final = Path(__file__).parent
_ROUND_TIMEOUT: Final = 300.0
_START_TIMEOUT: Final = 30.0


@frozen(kw_only=True)
class Result:
    """What a metric came to.

    Attributes:
        benchmark: Name of the benchmark.
        metric: Name of the metric.
        unit: Of ``baseline``, ``measured`` and ``rounds``.
        baseline: The median of what it is compared with, or ``None`` where it is compared with nothing.
        measured: Ours.
        ratio: Ours divided by the baseline.
        target: Of the ratio, or where there is none of ``measured``.
        met: Whether the target is met; ``None`` where there is none.
        rounds: Every round, by side.
    """

    benchmark: str
    metric: str
    unit: str
    baseline: float | None
    measured: float
    ratio: float | None
    target: str
    met: bool | None
    rounds: dict[str, list[float]] = field(repr=False)


@asynccontextmanager
async def _child(script: str, *arguments: str) -> AsyncIterator[Process]:
    """Run a script of this folder; it ends when its standard input does.

    What it complains of is shown only when it fails: the raw client leaves unclosed what a reset broke.
    """
    with tempfile.TemporaryFile() as complaints:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / script),
            *arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=complaints,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},  # this checkout, installed or not
        )
        try:
            yield child
            if child.stdin is not None:
                child.stdin.close()
            async with asyncio.timeout(_START_TIMEOUT):
                await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
            if child.returncode != 0:
                complaints.seek(0)
                sys.stderr.write(complaints.read().decode(errors="replace"))


async def _line(child: Process, timeout: float) -> str:  # noqa: ASYNC109 - it is for the error
    """Return the next line that a child prints."""
    if child.stdout is None:
        raise RuntimeError("the child has no standard output")
    async with asyncio.timeout(timeout):
        line = await child.stdout.readline()
    if not line:
        raise RuntimeError(f"a child ended with exit code {await child.wait()}")
    return line.decode().strip()


async def _clients(stack: AsyncExitStack, sides: Iterable[str], port: int) -> dict[str, Process]:
    """Start a client for each side: side by side, to be measured one by one."""
    clients = {
        side: await stack.enter_async_context(
            _child("measured_client.py", "--side", side, "--port", str(port))
        )
        for side in sides
    }
    for client in clients.values():
        await _line(client, _START_TIMEOUT)
    return clients


async def _round(child: Process, benchmark: str, count: int) -> dict[str, float]:
    """Have a client do one round."""
    if child.stdin is None:
        raise RuntimeError("the child has no standard input")
    child.stdin.write(f"{benchmark} {count}\n".encode())
    figures: dict[str, float] = json.loads(await _line(child, _ROUND_TIMEOUT))
    return figures


async def measure(
    benchmark: Benchmark, port: int, smoke_clients: dict[str, Process] | None = None
) -> dict[str, list[dict[str, float]]]:
    """Do all rounds of a benchmark, the sides in turn; return each side's figures.

    Args:
        benchmark: Which one.
        port: Of the server.
        smoke_clients: For a smoke run: the clients that do all benchmarks of it.
    """
    smoke = smoke_clients is not None
    left = benchmark.smoke_rounds if smoke else benchmark.rounds
    count = benchmark.smoke_count if smoke else benchmark.count
    figures: dict[str, list[dict[str, float]]] = {side: [] for side in benchmark.sides}
    while left:
        rounds = min(left, benchmark.rounds_per_process)
        left -= rounds
        async with AsyncExitStack() as stack:
            clients = smoke_clients or await _clients(stack, benchmark.sides, port)
            for _ in range(rounds):
                for side in benchmark.sides:
                    figures[side].append(await _round(clients[side], benchmark.name, count))
    return figures


def evaluate(benchmark: Benchmark, figures: dict[str, list[dict[str, float]]]) -> Iterator[Result]:
    """Reduce the rounds of a benchmark to a result per metric."""
    for metric in benchmark.metrics:
        rounds = {
            side: [each[metric.figure] * metric.scale for each in all_of_side]
            for side, all_of_side in figures.items()
        }
        medians = {side: statistics.median(values) for side, values in rounds.items()}
        *others, ours = benchmark.sides
        baseline = medians[others[0]] if others else None
        ratio = None if baseline is None else medians[ours] / baseline
        yield Result(
            benchmark=benchmark.name,
            metric=metric.name,
            unit=metric.unit,
            baseline=baseline,
            measured=medians[ours],
            ratio=ratio,
            target=metric.target,
            met=metric.is_met(medians[ours] if ratio is None else ratio),
            rounds=rounds,
        )


async def run(names: Iterable[str], *, smoke: bool) -> AsyncIterator[Result]:
    """Run benchmarks, and yield the results as they come."""
    named = frozenset(names)
    chosen = [benchmark for benchmark in BENCHMARKS if not named or benchmark.name in named]
    async with _child("load_server.py") as server, AsyncExitStack() as stack:
        port = int(await _line(server, _START_TIMEOUT))
        clients = None
        if smoke:
            sides = {side for benchmark in chosen for side in benchmark.sides}
            clients = await _clients(stack, sides, port)
        for benchmark in chosen:
            for result in evaluate(benchmark, await measure(benchmark, port, clients)):
                yield result


def _row(result: Result) -> str:
    baseline = "-" if result.baseline is None else f"{result.baseline:,.2f}"
    ratio = "-" if result.ratio is None else f"{result.ratio:.2f}"
    verdict = {True: "met", False: "MISSED", None: ""}[result.met]
    name = f"{result.benchmark}, {result.metric}"
    figures = f"{baseline:>12}{result.measured:>12,.2f}  {result.unit:<6}{ratio:>6}"
    return f"{name:<42}{figures}   {result.target:<8}{verdict}".rstrip()


async def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--smoke", action="store_true", help="a short run that only proves that all of it works"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", action="append", default=[], choices=[each.name for each in BENCHMARKS])
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 when a target is missed (not in smoke)"
    )
    options = parser.parse_args(arguments)

    if not options.json:
        print(f"{'':<42}{'baseline':>12}{'realtime':>12}  {'unit':<6}{'ratio':>6}   target", flush=True)
    results: list[Result] = []
    async for result in run(options.only, smoke=options.smoke):
        results.append(result)
        if not options.json:
            print(_row(result), flush=True)
    if options.json:
        report: dict[str, Any] = {"smoke": options.smoke, "results": [asdict(each) for each in results]}
        print(json.dumps(report, indent=2))
    missed = any(each.met is False for each in results)
    return int(options.check and not options.smoke and missed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
