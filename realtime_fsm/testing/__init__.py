"""Tools to test a realtime client with: virtual time, a simulated server, and faults on real sockets.

Every name can be imported from here; its module is imported when it is asked for, and not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from realtime_fsm.testing.backend_thread import RealtimeBackend, ThreadedProxy
    from realtime_fsm.testing.config_strategies import configs
    from realtime_fsm.testing.connection_rules import ConnectionRules
    from realtime_fsm.testing.contracts.contract import Contract, run_in_real_time
    from realtime_fsm.testing.contracts.outbox_contract import OutboxContract
    from realtime_fsm.testing.contracts.poller_contract import PollerContract
    from realtime_fsm.testing.contracts.poller_server import PollerServer
    from realtime_fsm.testing.contracts.token_source_contract import TokenSourceContract
    from realtime_fsm.testing.contracts.transport_contract import TransportContract
    from realtime_fsm.testing.environment import Environment, SimulatedEnvironment
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
    from realtime_fsm.testing.full_stack import FullStackEnvironment
    from realtime_fsm.testing.lane_faults import Direction
    from realtime_fsm.testing.machine_rules import MachineRules
    from realtime_fsm.testing.memory_network import MemoryNetwork
    from realtime_fsm.testing.network_faults import NetworkFaults
    from realtime_fsm.testing.oracle import Violation
    from realtime_fsm.testing.schedule import Schedule, Setting, Step, random_schedule
    from realtime_fsm.testing.schedule_strategies import fault_schedules
    from realtime_fsm.testing.seed_sweep import Failure, Sweep, sweep
    from realtime_fsm.testing.shrinking import shrink
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
    from realtime_fsm.testing.simulation import Simulation, Story, play
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
        VirtualRunner,
        VirtualSession,
        run,
        wall_clock,
    )

_HOME: Final = {
    "Accept": "simulated_server",
    "ConnectionRules": "connection_rules",
    "Contract": "contracts.contract",
    "Deadlock": "virtual_loop",
    "Delay": "frame_rules",
    "Direction": "lane_faults",
    "Duplicate": "frame_rules",
    "Environment": "environment",
    "Exploration": "exploration",
    "Failure": "seed_sweep",
    "FaultProxy": "fault_proxy",
    "FrameLog": "frame_rules",
    "FullStackEnvironment": "full_stack",
    "Hang": "simulated_server",
    "Inject": "frame_rules",
    "LeakError": "virtual_loop",
    "LimitError": "virtual_loop",
    "MachineRules": "machine_rules",
    "Match": "frame_rules",
    "MemoryNetwork": "memory_network",
    "MessageDraft": "strategies",
    "Move": "exploration",
    "NetworkFaults": "network_faults",
    "OutboxContract": "contracts.outbox_contract",
    "Pass": "frame_rules",
    "Passage": "frame_rules",
    "PollerContract": "contracts.poller_contract",
    "PollerServer": "contracts.poller_server",
    "ProxyCounters": "fault_proxy",
    "RealtimeBackend": "backend_thread",
    "Refuse": "simulated_server",
    "Request": "simulated_http",
    "Reset": "frame_rules",
    "Rule": "frame_rules",
    "Schedule": "schedule",
    "Setting": "schedule",
    "SimulatedBackend": "simulated_backend",
    "SimulatedDisk": "simulated_outbox",
    "SimulatedEnvironment": "environment",
    "SimulatedHttp": "simulated_http",
    "SimulatedOutbox": "simulated_outbox",
    "SimulatedServer": "simulated_server",
    "SimulatedSessions": "simulated_sessions",
    "SimulatedTransport": "simulated_transport",
    "Simulation": "simulation",
    "Step": "schedule",
    "Story": "simulation",
    "Swallow": "frame_rules",
    "Sweep": "seed_sweep",
    "ThreadedProxy": "backend_thread",
    "TokenSourceContract": "contracts.token_source_contract",
    "TransportContract": "contracts.transport_contract",
    "Violation": "oracle",
    "VirtualLoop": "virtual_loop",
    "VirtualRunner": "virtual_loop",
    "VirtualSession": "virtual_loop",
    "configs": "config_strategies",
    "echo": "simulated_server",
    "echo_only": "simulated_server",
    "event_names": "strategies",
    "explore": "exploration",
    "facts": "strategies",
    "failures": "strategies",
    "fault_schedules": "schedule_strategies",
    "json_values": "strategies",
    "messages": "strategies",
    "moves_of": "exploration",
    "play": "simulation",
    "random_schedule": "schedule",
    "run": "virtual_loop",
    "run_in_real_time": "contracts.contract",
    "shrink": "shrinking",
    "silence": "simulated_server",
    "sweep": "seed_sweep",
    "trigger_sequences": "strategies",
    "triggers": "strategies",
    "wall_clock": "virtual_loop",
}

__all__ = [  # a test compares it with the table above
    "Accept",
    "ConnectionRules",
    "Contract",
    "Deadlock",
    "Delay",
    "Direction",
    "Duplicate",
    "Environment",
    "Exploration",
    "Failure",
    "FaultProxy",
    "FrameLog",
    "FullStackEnvironment",
    "Hang",
    "Inject",
    "LeakError",
    "LimitError",
    "MachineRules",
    "Match",
    "MemoryNetwork",
    "MessageDraft",
    "Move",
    "NetworkFaults",
    "OutboxContract",
    "Pass",
    "Passage",
    "PollerContract",
    "PollerServer",
    "ProxyCounters",
    "RealtimeBackend",
    "Refuse",
    "Request",
    "Reset",
    "Rule",
    "Schedule",
    "Setting",
    "SimulatedBackend",
    "SimulatedDisk",
    "SimulatedEnvironment",
    "SimulatedHttp",
    "SimulatedOutbox",
    "SimulatedServer",
    "SimulatedSessions",
    "SimulatedTransport",
    "Simulation",
    "Step",
    "Story",
    "Swallow",
    "Sweep",
    "ThreadedProxy",
    "TokenSourceContract",
    "TransportContract",
    "Violation",
    "VirtualLoop",
    "VirtualRunner",
    "VirtualSession",
    "configs",
    "echo",
    "echo_only",
    "event_names",
    "explore",
    "facts",
    "failures",
    "fault_schedules",
    "json_values",
    "messages",
    "moves_of",
    "play",
    "random_schedule",
    "run",
    "run_in_real_time",
    "shrink",
    "silence",
    "sweep",
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
