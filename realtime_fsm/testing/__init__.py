"""Tools to test a realtime client with: virtual time, a simulated server, and faults on real sockets.

Every name can be imported from here; its module is imported when it is asked for, and not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from realtime_fsm.testing.config_strategies import configs
    from realtime_fsm.testing.exploration import Exploration, Move, explore, moves_of
    from realtime_fsm.testing.fault_proxy import FaultProxy, ProxyCounters
    from realtime_fsm.testing.frame_rules import (
        Delay,
        Duplicate,
        FrameLog,
        Inject,
        Match,
        Pass,
        Passage,
        Reset,
        Rule,
        Swallow,
    )
    from realtime_fsm.testing.lane_faults import Direction
    from realtime_fsm.testing.machine_rules import MachineRules
    from realtime_fsm.testing.simulated_backend import SimulatedBackend
    from realtime_fsm.testing.simulated_http import Request, SimulatedHttp
    from realtime_fsm.testing.simulated_outbox import SimulatedDisk, SimulatedOutbox
    from realtime_fsm.testing.simulated_server import (
        Accept,
        Hang,
        Refuse,
        SimulatedServer,
        echo,
        echo_only,
        silence,
    )
    from realtime_fsm.testing.simulated_sessions import SimulatedSessions
    from realtime_fsm.testing.simulated_transport import SimulatedTransport
    from realtime_fsm.testing.strategies import (
        MessageDraft,
        event_names,
        facts,
        failures,
        json_values,
        messages,
        trigger_sequences,
        triggers,
    )
    from realtime_fsm.testing.virtual_loop import (
        Deadlock,
        LeakError,
        LimitError,
        VirtualLoop,
        run,
        wall_clock,
    )

_HOME: Final = {
    "Accept": "simulated_server",
    "Deadlock": "virtual_loop",
    "Delay": "frame_rules",
    "Direction": "lane_faults",
    "Duplicate": "frame_rules",
    "Exploration": "exploration",
    "FaultProxy": "fault_proxy",
    "FrameLog": "frame_rules",
    "Hang": "simulated_server",
    "Inject": "frame_rules",
    "LeakError": "virtual_loop",
    "LimitError": "virtual_loop",
    "MachineRules": "machine_rules",
    "Match": "frame_rules",
    "MessageDraft": "strategies",
    "Move": "exploration",
    "Pass": "frame_rules",
    "Passage": "frame_rules",
    "ProxyCounters": "fault_proxy",
    "Refuse": "simulated_server",
    "Request": "simulated_http",
    "Reset": "frame_rules",
    "Rule": "frame_rules",
    "SimulatedBackend": "simulated_backend",
    "SimulatedDisk": "simulated_outbox",
    "SimulatedHttp": "simulated_http",
    "SimulatedOutbox": "simulated_outbox",
    "SimulatedServer": "simulated_server",
    "SimulatedSessions": "simulated_sessions",
    "SimulatedTransport": "simulated_transport",
    "Swallow": "frame_rules",
    "VirtualLoop": "virtual_loop",
    "configs": "config_strategies",
    "echo": "simulated_server",
    "echo_only": "simulated_server",
    "event_names": "strategies",
    "explore": "exploration",
    "facts": "strategies",
    "failures": "strategies",
    "json_values": "strategies",
    "messages": "strategies",
    "moves_of": "exploration",
    "run": "virtual_loop",
    "silence": "simulated_server",
    "trigger_sequences": "strategies",
    "triggers": "strategies",
    "wall_clock": "virtual_loop",
}

__all__ = [
    "Accept",
    "Deadlock",
    "Delay",
    "Direction",
    "Duplicate",
    "Exploration",
    "FaultProxy",
    "FrameLog",
    "Hang",
    "Inject",
    "LeakError",
    "LimitError",
    "MachineRules",
    "Match",
    "MessageDraft",
    "Move",
    "Pass",
    "Passage",
    "ProxyCounters",
    "Refuse",
    "Request",
    "Reset",
    "Rule",
    "SimulatedBackend",
    "SimulatedDisk",
    "SimulatedHttp",
    "SimulatedOutbox",
    "SimulatedServer",
    "SimulatedSessions",
    "SimulatedTransport",
    "Swallow",
    "VirtualLoop",
    "configs",
    "echo",
    "echo_only",
    "event_names",
    "explore",  # a test compares it with the table above
    "facts",
    "failures",
    "json_values",
    "messages",
    "moves_of",
    "run",
    "silence",
    "trigger_sequences",
    "triggers",
    "wall_clock",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
