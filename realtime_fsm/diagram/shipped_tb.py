"""The plan of the shipped machine from top to bottom: 390 pixels wide, as a phone is."""

from typing import Final

from realtime_fsm.diagram.drawing import Box, Text
from realtime_fsm.diagram.plan import At, Fork, Plan, Route

_DISCONNECT = ((200.0, 128.0), (200.0, 60.0), (166.0, 60.0))


def _disconnect(*, label: At | None = None) -> Route:
    return Route(points=_DISCONNECT, badge=(200, 116), label=label, shared=label is None)


PLAN_TB: Final = Plan(
    width=390,
    height=712,
    start=(95, 14),
    start_points=((95, 20), (95, 44)),
    frame=Box(4, 128, 382, 578),
    frame_texts=(Text(x=208, y=102, text="from any of these"),),
    boxes={
        "disconnected": Box(24, 44, 142, 32),
        "connecting": Box(18, 170, 122, 64),
        "connected": Box(238, 170, 122, 80),
        "reconnecting": Box(125, 334, 140, 50),
        "failed": Box(125, 444, 140, 64),
        "fallback": Box(170, 612, 190, 80),
    },
    badges={
        "disconnected": (126, 78),
        "connecting": (112, 236),
        "connected": (276, 252),
        "reconnecting": (195, 386),
        "failed": (153, 510),
        "fallback": (265, 694),
    },
    forks={
        ("connecting", "attempt_failed"): Fork(points=((62, 234), (62, 302)), label=At(68, 270)),
        ("connected", "connection_lost"): Fork(points=((328, 250), (328, 302)), label=At(322, 280, "end")),
    },
    routes={
        ("disconnected", "connect", "connecting"): Route(
            points=((60, 76), (60, 170)), badge=(60, 112), label=At(68, 150)
        ),
        ("connecting", "established", "connected"): Route(
            points=((140, 188), (238, 188)), badge=(189, 188), label=At(189, 177, "middle")
        ),
        ("connecting", "attempt_failed", "reconnecting"): Route(
            points=((71, 302), (172, 302), (172, 334)), badge=(172, 314), label=At(120, 296, "middle")
        ),
        ("connecting", "attempt_failed", "failed"): Route(
            points=((62, 311), (62, 462), (125, 462)), badge=(62, 380), label=At(68, 418)
        ),
        ("connecting", "force_fallback", "fallback"): Route(
            points=((130, 170), (130, 150), (372, 150), (372, 640), (360, 640)),
            badge=(160, 150),
            label=At(310, 144, "end"),
        ),
        ("connected", "connection_lost", "reconnecting"): Route(
            points=((319, 302), (218, 302), (218, 334)), badge=(218, 314), label=At(268, 296, "middle")
        ),
        ("connected", "connection_lost", "failed"): Route(
            points=((328, 311), (328, 462), (265, 462)), badge=(328, 390), label=At(322, 418, "end")
        ),
        ("connected", "force_fallback", "fallback"): Route(
            points=((360, 186), (372, 186), (372, 640), (360, 640)),
            stub=((360, 186), (372, 186)),
            badge=(361, 186),
            shared=True,
        ),
        ("reconnecting", "retry", "connecting"): Route(
            points=((195, 334), (195, 218), (140, 218)), badge=(195, 246), label=At(170, 212, "middle")
        ),
        ("reconnecting", "force_fallback", "fallback"): Route(
            points=((265, 360), (372, 360), (372, 640), (360, 640)),
            stub=((265, 360), (372, 360)),
            badge=(294, 360),
            shared=True,
        ),
        ("failed", "connect", "connecting"): Route(
            points=((125, 490), (32, 490), (32, 234)), badge=(32, 440), label=At(84, 505, "middle")
        ),
        ("failed", "retry", "connecting"): Route(
            points=((125, 490), (32, 490), (32, 234)),
            badge=(32, 460),
            label=At(84, 520, "middle"),
            shared=True,
        ),
        ("failed", "fall_back", "fallback"): Route(
            points=((212, 508), (212, 612)), badge=(212, 524), label=At(205, 552, "end")
        ),
        ("failed", "force_fallback", "fallback"): Route(
            points=((212, 508), (212, 612)), badge=(212, 588), label=At(205, 568, "end"), shared=True
        ),
        ("fallback", "established", "connected"): Route(
            points=((350, 612), (350, 250)), badge=(350, 520), label=At(344, 550, "end")
        ),
        ("fallback", "polling_refused", "failed"): Route(
            points=((230, 612), (230, 508)), badge=(230, 556), label=At(235, 592)
        ),
        ("fallback", "force_fallback", "fallback"): Route(
            points=((170, 632), (140, 632), (140, 682), (170, 682)),
            badge=(148, 632),
            label=At(132, 654, "end"),
        ),
        ("fallback", "release_fallback", "fallback"): Route(
            points=((170, 632), (140, 632), (140, 682), (170, 682)),
            badge=(148, 682),
            label=At(132, 669, "end"),
            shared=True,
        ),
        ("connecting", "disconnect", "disconnected"): _disconnect(label=At(208, 87)),
        ("connected", "disconnect", "disconnected"): _disconnect(),
        ("reconnecting", "disconnect", "disconnected"): _disconnect(),
        ("failed", "disconnect", "disconnected"): _disconnect(),
        ("fallback", "disconnect", "disconnected"): _disconnect(),
    },
)
