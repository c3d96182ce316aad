"""The plan of the shipped machine from left to right: for a wide page.

A line keeps to the grid, leaves and enters a state at its border, and crosses another in two places only:
where being forced out of RECONNECTING leads to FALLBACK, which the outcomes of a loss stand around.
"""

from typing import Final

from realtime_fsm.diagram.drawing import Box, Text
from realtime_fsm.diagram.plan import At, Fork, Plan, Route

_DISCONNECT = ((188.0, 340.0), (87.0, 340.0), (87.0, 116.0))


def _disconnect(*, label: At | None = None) -> Route:
    return Route(points=_DISCONNECT, badge=(138, 340), label=label, shared=label is None)


PLAN_LR: Final = Plan(
    width=1056,
    height=578,
    start=(87, 50),
    start_points=((87, 56), (87, 84)),
    frame=Box(188, 10, 858, 558),
    frame_texts=(Text(x=95, y=259, text="from any"), Text(x=95, y=274, text="of these")),
    boxes={
        "disconnected": Box(16, 84, 142, 32),
        "connecting": Box(270, 68, 130, 64),
        "connected": Box(690, 62, 130, 80),
        "reconnecting": Box(475, 250, 140, 50),
        "failed": Box(475, 424, 140, 64),
        "fallback": Box(815, 414, 176, 80),
    },
    badges={
        "disconnected": (130, 118),
        "connecting": (384, 134),
        "connected": (712, 144),
        "reconnecting": (520, 302),
        "failed": (545, 490),
        "fallback": (838, 496),
    },
    forks={
        ("connecting", "attempt_failed"): Fork(points=((340, 132), (340, 275)), label=At(348, 200)),
        ("connected", "connection_lost"): Fork(points=((770, 142), (770, 275)), label=At(762, 200, "end")),
    },
    routes={
        ("disconnected", "connect", "connecting"): Route(
            points=((158, 100), (270, 100)), badge=(174, 100), label=At(229, 94, "middle")
        ),
        ("connecting", "established", "connected"): Route(
            points=((400, 84), (690, 84)), badge=(620, 84), label=At(545, 78, "middle")
        ),
        ("connecting", "attempt_failed", "reconnecting"): Route(
            points=((349, 275), (475, 275)), badge=(452, 275), label=At(355, 269)
        ),
        ("connecting", "attempt_failed", "failed"): Route(
            points=((340, 284), (340, 440), (475, 440)), badge=(410, 440), label=At(348, 360)
        ),
        ("connecting", "force_fallback", "fallback"): Route(
            points=((335, 68), (335, 36), (1026, 36), (1026, 440), (991, 440)),
            badge=(430, 36),
            label=At(545, 30, "middle"),
        ),
        ("connected", "connection_lost", "reconnecting"): Route(
            points=((761, 275), (615, 275)), badge=(640, 275), label=At(755, 269, "end")
        ),
        ("connected", "connection_lost", "failed"): Route(
            points=((770, 284), (770, 385), (560, 385), (560, 424)),
            badge=(650, 385),
            label=At(762, 365, "end"),
        ),
        ("connected", "force_fallback", "fallback"): Route(
            points=((820, 84), (1026, 84), (1026, 440), (991, 440)),
            stub=((820, 84), (1026, 84)),
            badge=(920, 84),
            shared=True,
        ),
        ("reconnecting", "retry", "connecting"): Route(
            points=((545, 250), (545, 112), (400, 112)), badge=(545, 190), label=At(490, 106, "middle")
        ),
        ("reconnecting", "force_fallback", "fallback"): Route(
            points=((580, 300), (580, 330), (1026, 330), (1026, 440), (991, 440)),
            stub=((580, 300), (580, 330), (1026, 330)),
            badge=(680, 330),
            shared=True,
        ),
        ("failed", "connect", "connecting"): Route(
            points=((475, 470), (300, 470), (300, 132)), badge=(300, 240), label=At(292, 300, "end")
        ),
        ("failed", "retry", "connecting"): Route(
            points=((475, 470), (300, 470), (300, 132)),
            badge=(300, 360),
            label=At(292, 316, "end"),
            shared=True,
        ),
        ("failed", "fall_back", "fallback"): Route(
            points=((615, 450), (815, 450)), badge=(640, 450), label=At(808, 430, "end")
        ),
        ("failed", "force_fallback", "fallback"): Route(
            points=((615, 450), (815, 450)), badge=(686, 450), label=At(808, 444, "end"), shared=True
        ),
        ("fallback", "established", "connected"): Route(
            points=((903, 414), (903, 118), (820, 118)), badge=(903, 260), label=At(911, 220)
        ),
        ("fallback", "polling_refused", "failed"): Route(
            points=((815, 476), (615, 476)), badge=(780, 476), label=At(690, 491, "middle")
        ),
        ("fallback", "force_fallback", "fallback"): Route(
            points=((900, 494), (900, 524), (960, 524), (960, 494)),
            badge=(900, 512),
            label=At(930, 540, "middle"),
        ),
        ("fallback", "release_fallback", "fallback"): Route(
            points=((900, 494), (900, 524), (960, 524), (960, 494)),
            badge=(960, 512),
            label=At(930, 555, "middle"),
            shared=True,
        ),
        ("connecting", "disconnect", "disconnected"): _disconnect(label=At(95, 240)),
        ("connected", "disconnect", "disconnected"): _disconnect(),
        ("reconnecting", "disconnect", "disconnected"): _disconnect(),
        ("failed", "disconnect", "disconnected"): _disconnect(),
        ("fallback", "disconnect", "disconnected"): _disconnect(),
    },
)
