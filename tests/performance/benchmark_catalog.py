"""What is measured, how often, and what is asked of it."""

import math
import socket
from typing import Final

from attrs import frozen

RAW: Final = "raw"
REALTIME: Final = "realtime"
MONITORED: Final = "monitored"


@frozen(kw_only=True)
class Metric:
    """A figure of a benchmark, and what is asked of it.

    Attributes:
        name: For people, and for ``--json``.
        figure: Which of the round's figures.
        unit: In which it is shown.
        scale: From the figure to the unit.
        at_most: Target of the ratio, where less is better; of the figure itself where there is no other side.
        at_least: The same, where more is better.
    """

    name: str
    figure: str
    unit: str
    scale: float = 1.0
    at_most: float | None = None
    at_least: float | None = None

    @property
    def target(self) -> str:
        """The target, for people; empty where there is none."""
        if self.at_most is not None:
            return f"<= {self.at_most:,.2f}"
        return "" if self.at_least is None else f">= {self.at_least:,.2f}"

    def is_met(self, value: float) -> bool | None:
        """Tell whether a ratio or a figure is as it should be; ``None`` where nothing is asked."""
        if self.at_most is None and self.at_least is None:
            return None
        return value <= (self.at_most or math.inf) and value >= (self.at_least or 0.0)


@frozen(kw_only=True)
class Benchmark:
    """What is measured, and how often.

    Attributes:
        name: Which one; ``measured_client.py`` knows how.
        metrics: What is shown of it.
        count: Messages, or connections, of one round.
        smoke_count: The same in smoke mode.
        rounds: How many.
        smoke_rounds: The same in smoke mode.
        rounds_per_process: After how many rounds the processes are thrown away. The luck of a process (its
            layout, its hash seed) lasts as long as it, so where CPU time is measured several take turns.
        sides: Who is measured; the last is compared with the first, where there are two.
    """

    name: str
    metrics: tuple[Metric, ...]
    count: int = 1
    smoke_count: int = 1
    rounds: int = 7
    smoke_rounds: int = 1
    rounds_per_process: int = 1
    sides: tuple[str, ...] = (RAW, REALTIME)


_MICROSECONDS: Final = 1e6
_MILLISECONDS: Final = 1e3


def _cpu(at_most: float | None) -> Metric:
    return Metric(name="client CPU each", figure="cpu", unit="us", scale=_MICROSECONDS, at_most=at_most)


BENCHMARKS: Final = (
    Benchmark(name="emit", metrics=(_cpu(1.25),), count=20_000, smoke_count=500),
    Benchmark(name="receive", metrics=(_cpu(1.25),), count=20_000, smoke_count=500),
    *(
        [Benchmark(name="receive_bulk", metrics=(_cpu(1.25),), count=20_000, smoke_count=500)]
        if hasattr(socket, "TCP_CORK")  # only Linux can make a server write full segments
        else []
    ),
    Benchmark(
        name="acknowledged",
        metrics=(
            Metric(name="round trip p50", figure="wall", unit="us", scale=_MICROSECONDS, at_most=1.0),
            _cpu(1.0),
        ),
        count=1_500,
        smoke_count=100,
        rounds=21,  # of a round trip most is spent outside of the client, where it varies
        rounds_per_process=3,
    ),
    Benchmark(
        name="windowed",
        metrics=(Metric(name="32 in flight", figure="rate", unit="msg/s", at_least=1.0), _cpu(None)),
        count=4_800,
        smoke_count=320,
        rounds=21,
        rounds_per_process=3,
    ),
    Benchmark(
        name="outbox",
        metrics=(
            Metric(name="outbox / calls one by one", figure="rate", unit="msg/s", at_least=3.0),
            _cpu(None),
        ),
        count=4_800,
        smoke_count=320,
        rounds=9,
        rounds_per_process=3,
    ),
    Benchmark(
        name="durable_emit",
        metrics=(Metric(name="100 producers, on the disk", figure="rate", unit="msg/s", at_least=15_000.0),),
        count=50_000,
        smoke_count=2_000,
        rounds=5,
        sides=(REALTIME,),
    ),
    Benchmark(
        name="restart",
        metrics=(Metric(name="100,000 stored messages", figure="wall", unit="s", at_most=2.0),),
        count=100_000,
        smoke_count=2_000,
        rounds=3,
        sides=(REALTIME,),
    ),
    Benchmark(
        name="memory",
        metrics=(
            Metric(name="1,000,000 messages, RSS end / 10%", figure="growth", unit="", at_most=1.1),
            Metric(name="rate meanwhile", figure="rate", unit="msg/s"),
        ),
        count=1_000_000,
        smoke_count=1_000,
        rounds=1,
        sides=(REALTIME,),
    ),
    Benchmark(
        name="connect",
        metrics=(Metric(name="p50", figure="wall", unit="ms", scale=_MILLISECONDS),),
        count=100,
        smoke_count=5,
    ),
    Benchmark(
        name="reset",
        metrics=(Metric(name="until connected again", figure="wall", unit="s", at_most=1.1),),
        rounds=11,
        rounds_per_process=11,
    ),
    Benchmark(
        name="black_hole",
        metrics=(Metric(name="until noticed (1.0 s + 0.5 s)", figure="wall", unit="s"),),
        rounds=3,
        rounds_per_process=3,
        sides=(REALTIME,),
    ),
    *(
        Benchmark(
            name=f"monitored_{way}",
            metrics=(_cpu(1.1),),
            count=10_000,
            smoke_count=500,
            rounds=15,
            rounds_per_process=3,
            sides=(REALTIME, MONITORED),
        )
        for way in ("emit", "receive")
    ),
)
