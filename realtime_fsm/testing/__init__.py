"""Tools to test a realtime client with: virtual time, a simulated server, and faults on real sockets.

Every name can be imported from here; its module is imported when it is asked for, and not before.
"""

from typing import TYPE_CHECKING, Final

from realtime_fsm import lazily

if TYPE_CHECKING:
    from realtime_fsm.testing.backend_thread import RealtimeBackend, ThreadedProxy
    from realtime_fsm.testing.contracts.contract import Contract, run_in_real_time
    from realtime_fsm.testing.contracts.outbox_contract import OutboxContract
    from realtime_fsm.testing.contracts.poller_contract import PollerContract, PollerServer
    from realtime_fsm.testing.contracts.token_source_contract import TokenSourceContract
    from realtime_fsm.testing.contracts.transport_contract import TransportContract
    from realtime_fsm.testing.exploration import Exploration, Move, explore, moves_of
    from realtime_fsm.testing.fuzz.full_stack import FullStackEnvironment
    from realtime_fsm.testing.fuzz.memory_network import MemoryNetwork
    from realtime_fsm.testing.fuzz.schedule import Schedule, Setting, Step, random_schedule
    from realtime_fsm.testing.fuzz.simulation import Simulation, Story, Violation, play
    from realtime_fsm.testing.fuzz.sweep import Failure, Sweep, shrink, sweep
    from realtime_fsm.testing.fuzz.world import Environment, SimulatedEnvironment
    from realtime_fsm.testing.machine_rules import ConnectionRules, MachineRules
    from realtime_fsm.testing.proxy.faults import Direction, NetworkFaults
    from realtime_fsm.testing.proxy.frames import (
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
    from realtime_fsm.testing.proxy.proxy import FaultProxy, ProxyCounters
    from realtime_fsm.testing.simulated.backend import SimulatedBackend
    from realtime_fsm.testing.simulated.http import Request, SimulatedHttp
    from realtime_fsm.testing.simulated.outbox import SimulatedDisk, SimulatedOutbox
    from realtime_fsm.testing.simulated.server import (
        Accept,
        Hang,
        Refuse,
        SimulatedServer,
        SimulatedTransport,
        echo,
        echo_only,
        silence,
    )
    from realtime_fsm.testing.simulated.sessions import SimulatedSessions
    from realtime_fsm.testing.strategies import (
        MessageDraft,
        configs,
        event_names,
        facts,
        failures,
        fault_schedules,
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
    "Accept": "simulated.server",
    "ConnectionRules": "machine_rules",
    "Contract": "contracts.contract",
    "Deadlock": "virtual_loop",
    "Delay": "proxy.frames",
    "Direction": "proxy.faults",
    "Duplicate": "proxy.frames",
    "Environment": "fuzz.world",
    "Exploration": "exploration",
    "Failure": "fuzz.sweep",
    "FaultProxy": "proxy.proxy",
    "FrameLog": "proxy.frames",
    "FullStackEnvironment": "fuzz.full_stack",
    "Hang": "simulated.server",
    "Inject": "proxy.frames",
    "LeakError": "virtual_loop",
    "LimitError": "virtual_loop",
    "MachineRules": "machine_rules",
    "Match": "proxy.frames",
    "MemoryNetwork": "fuzz.memory_network",
    "MessageDraft": "strategies",
    "Move": "exploration",
    "NetworkFaults": "proxy.faults",
    "OutboxContract": "contracts.outbox_contract",
    "Pass": "proxy.frames",
    "Passage": "proxy.frames",
    "PollerContract": "contracts.poller_contract",
    "PollerServer": "contracts.poller_contract",
    "ProxyCounters": "proxy.proxy",
    "RealtimeBackend": "backend_thread",
    "Refuse": "simulated.server",
    "Request": "simulated.http",
    "Reset": "proxy.frames",
    "Rule": "proxy.frames",
    "Schedule": "fuzz.schedule",
    "Setting": "fuzz.schedule",
    "SimulatedBackend": "simulated.backend",
    "SimulatedDisk": "simulated.outbox",
    "SimulatedEnvironment": "fuzz.world",
    "SimulatedHttp": "simulated.http",
    "SimulatedOutbox": "simulated.outbox",
    "SimulatedServer": "simulated.server",
    "SimulatedSessions": "simulated.sessions",
    "SimulatedTransport": "simulated.server",
    "Simulation": "fuzz.simulation",
    "Step": "fuzz.schedule",
    "Story": "fuzz.simulation",
    "Swallow": "proxy.frames",
    "Sweep": "fuzz.sweep",
    "ThreadedProxy": "backend_thread",
    "TokenSourceContract": "contracts.token_source_contract",
    "TransportContract": "contracts.transport_contract",
    "Violation": "fuzz.simulation",
    "VirtualLoop": "virtual_loop",
    "VirtualRunner": "virtual_loop",
    "VirtualSession": "virtual_loop",
    "configs": "strategies",
    "echo": "simulated.server",
    "echo_only": "simulated.server",
    "event_names": "strategies",
    "explore": "exploration",
    "facts": "strategies",
    "failures": "strategies",
    "fault_schedules": "strategies",
    "json_values": "strategies",
    "messages": "strategies",
    "moves_of": "exploration",
    "play": "fuzz.simulation",
    "random_schedule": "fuzz.schedule",
    "run": "virtual_loop",
    "run_in_real_time": "contracts.contract",
    "shrink": "fuzz.sweep",
    "silence": "simulated.server",
    "sweep": "fuzz.sweep",
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

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _HOME)
