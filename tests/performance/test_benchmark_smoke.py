import asyncio
import json
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import benchmark
import pytest
from benchmark_catalog import BENCHMARKS, RAW, REALTIME

SCRIPT = Path(__file__).with_name("benchmark.py")


def run_smoke() -> list[dict[str, Any]]:
    """Run the benchmarks as a user would, and return the results."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--smoke", "--json", "--check"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["results"]


def test_benchmarks_report_positive_figures_in_smoke_mode() -> None:
    """Every benchmark runs for real in smoke mode, and each of its figures is positive and finite."""
    results = run_smoke()

    expected = [(bench, metric) for bench in BENCHMARKS for metric in bench.metrics]
    assert [(r["benchmark"], r["metric"]) for r in results] == [(b.name, m.name) for b, m in expected]
    for result, (bench, _) in zip(results, expected, strict=True):
        assert set(result["rounds"]) == set(bench.sides)
        figures = [figure for rounds in result["rounds"].values() for figure in rounds]
        assert len(figures) == bench.smoke_rounds * len(bench.sides)
        assert all(math.isfinite(figure) and figure > 0 for figure in figures), result
        assert (result["baseline"] is not None) == (len(bench.sides) > 1)
        assert all(
            result[k] is None or (math.isfinite(result[k]) and result[k] > 0) for k in ("baseline", "ratio")
        )
        assert math.isfinite(result["measured"])
        assert result["measured"] > 0


@pytest.mark.parametrize(("slowdown", "exit_code"), [(1.0, 0), (2.0, 1)])
def test_benchmark_fails_a_checked_run_that_misses_a_target(
    slowdown: float, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missed target ends a checked run with 1; a run that is a smoke run, or not checked, ends with 0."""
    emit = BENCHMARKS[0]
    figures = {RAW: [{"cpu": 1e-5}], REALTIME: [{"cpu": slowdown * 1e-5}]}

    async def run(names: list[str], *, smoke: bool) -> AsyncIterator[benchmark.Result]:
        for result in benchmark.evaluate(emit, figures):
            yield result

    monkeypatch.setattr(benchmark, "run", run)
    assert asyncio.run(benchmark.main(["--check"])) == exit_code
    assert asyncio.run(benchmark.main(["--check", "--smoke"])) == 0
    assert asyncio.run(benchmark.main([])) == 0
