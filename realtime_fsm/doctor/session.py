"""The checks of an open connection: the namespace, the identity, the heartbeat, the recovery, silence."""

import time
from typing import Any, Final

from realtime_fsm.doctor.examination import Examination, NamespaceConnection, Target
from realtime_fsm.doctor.finding import Fault, Finding, failed, from_error, ok, skipped, warning
from realtime_fsm.engine.token import jwt_expiry
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectTimeoutError,
    HeartbeatTimeoutError,
    NamespaceRefusedError,
    ServerDisconnectError,
)

NAMESPACE: Final = "namespace"
AUTHENTICATION: Final = "authentication"
HEARTBEAT: Final = "heartbeat"
RECOVERY: Final = "recovery"
IDLE: Final = "idle"

_CHANNEL: Final = "realtime-fsm-doctor"
"""Subscribed to for a moment; nobody publishes in it."""

_SLOW: Final = 1.0


async def check_namespace(examination: Examination) -> Finding:
    """Join the namespace, with the token where there is one."""
    target = examination.target
    if not examination.transports:
        return failed(
            NAMESPACE,
            Fault.UNSOUND,
            "No transport works: there is nothing to connect over.",
            "Mend the handshake over polling or the websocket first; see above.",
        )
    connection = examination.connection = NamespaceConnection(examination)
    await connection.begin()
    name, error = target.config.namespace, connection.error
    if error is None or isinstance(error, AuthenticationError):
        return ok(
            NAMESPACE,
            f"The namespace {name} answers over {connection.transport}.",
            transport=connection.transport,
        )
    if isinstance(error, NamespaceRefusedError):
        return from_error(
            NAMESPACE,
            type(error)(f"There is no namespace {name} on this server. {error.message}"),
            "Set `namespace` (--namespace) to one that the server has, or add a handler for it there.",
        )
    if isinstance(error, ConnectTimeoutError):
        return failed(NAMESPACE, Fault.UNSOUND, error.message, error.remedy)
    return from_error(NAMESPACE, error, retry_after=error.retry_after)


async def check_authentication(examination: Examination) -> Finding:
    """Say what became of the identity when the namespace was joined."""
    target = examination.target
    connection = examination.joined
    if connection.error is None:
        if target.token is None:
            return ok(AUTHENTICATION, "The server lets clients in without a token.", token=False)
        return ok(AUTHENTICATION, f"The server lets the client in with {target.token_name}.", token=True)
    said = connection.error.message.replace("..", ".")  # the server may have ended its words with one
    if target.token is None:
        return failed(
            AUTHENTICATION,
            Fault.REFUSED,
            f"No token was given, and the server wants one. {said}",
            "Put a token into an environment variable, and name it: --token-env NAME",
            token=False,
        )
    left = _seconds_left(target.token)
    if left is not None and left <= 0:
        return failed(
            AUTHENTICATION,
            Fault.REFUSED,
            f"{_capital(target.token_name)} expired {-left:.0f} s ago. {said}",
            "Get a fresh token; if it is fresh, set the clocks of this machine and of its issuer.",
            token=True,
        )
    key = target.config.dialect.token_key
    return failed(
        AUTHENTICATION,
        Fault.REFUSED,
        f"The server refuses {target.token_name}. {said}",
        f"Check that it is whole, meant for this server, and expected as `auth.{key}` of the connection.",
        token=True,
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _seconds_left(token: str) -> float | None:
    """Return how long a JSON Web Token still lasts by its own words; ``None`` where it does not say."""
    expiry = jwt_expiry(token)
    return None if expiry is None else expiry - time.time()


async def check_heartbeat(examination: Examination) -> Finding:
    """Ask for a sign of life, as the engine does when the connection falls silent."""
    target = examination.target
    connection, event = examination.joined, target.config.dialect.heartbeat_event
    began = time.monotonic()
    answer = None if event is None else await connection.ask(event)
    took = time.monotonic() - began
    if connection.lost.done():
        return _ended(HEARTBEAT, connection)
    if answer is not None:
        connection.acknowledges = True
        milliseconds = round(took * 1000, 1)
        if took > _SLOW:
            return warning(
                HEARTBEAT,
                f"`{event}` is acknowledged, but only after {took:.1f} s.",
                "The server or the way to it is overloaded: look at its load, and at what blocks its loop.",
                milliseconds=milliseconds,
            )
        return ok(HEARTBEAT, f"`{event}` is acknowledged ({took * 1000:.0f} ms).", milliseconds=milliseconds)
    return await _unacknowledged(target, connection, event)


async def _unacknowledged(target: Target, connection: NamespaceConnection, event: str | None) -> Finding:
    pongs = await connection.ping()
    if connection.lost.done():
        return _ended(HEARTBEAT, connection)
    if event is None and pongs:
        return ok(HEARTBEAT, "Pings of the websocket are answered; the dialect has no heartbeat of its own.")
    within = f"within {target.timeout:g} s"
    remedy = f"Add a handler of `{event}` to the server that calls its acknowledgement back."
    if target.config.dialect.confirms_subscriptions and event is not None:
        return failed(
            HEARTBEAT,
            Fault.UNSOUND,
            f"The server does not acknowledge `{event}` {within}, although its dialect promises that.",
            f"{remedy} If it is no reference backend, use --dialect plain.",
        )
    if pongs or connection.transport == "polling":
        instead = "pings of the websocket are answered" if pongs else "only failing requests will tell"
        return warning(
            HEARTBEAT,
            f"The server does not acknowledge `{event}` {within}; {instead}, so a dead way is noticed, "
            "a hung server is not.",
            remedy,
        )
    return failed(
        HEARTBEAT,
        Fault.UNSOUND,
        f"The connection is open, and deaf: neither `{event}` nor a ping is answered {within}.",
        "The server hangs, or a proxy passes nothing on after the handshake: look at the logs of both.",
    )


async def check_recovery(examination: Examination) -> Finding:
    """See whether what happens during an outage can be had afterwards."""
    target = examination.target
    connection, dialect = examination.joined, target.config.dialect
    if connection.lost.done():
        return skipped(RECOVERY, _why_lost(connection))
    if dialect.positions:
        return await _replays(connection, dialect.subscribe_event)
    if not dialect.recovers_sessions:
        return skipped(RECOVERY, f"The dialect {dialect.name} asks for no recovery.")
    if isinstance(connection.welcome.get("pid"), str):
        return ok(RECOVERY, "The server offers Socket.IO's connection state recovery.", kind="session")
    return warning(
        RECOVERY,
        "The server replays nothing: events that happen during an outage are missed.",
        "Register `on_resync` to load the present state. Node's server: switch connectionStateRecovery on; "
        "a reference backend: --dialect reference.",
        kind=None,
    )


async def _replays(connection: NamespaceConnection, event: str) -> Finding:
    answer = await connection.ask(event, {"channels": [_CHANNEL]})
    if connection.lost.done():
        return _ended(RECOVERY, connection)
    told = answer[0] if answer else None
    channels = told.get("channels") if isinstance(told, dict) else None
    channel = channels.get(_CHANNEL) if isinstance(channels, dict) else None
    if not isinstance(channel, dict):
        return failed(
            RECOVERY,
            Fault.UNSOUND,
            f"The server does not confirm `{event}` as a reference backend does.",
            "If it is none, use --dialect plain; otherwise update it.",
        )
    if (
        channel.get("ok") is True
        and isinstance(channel.get("epoch"), str)
        and _is_offset(channel.get("offset"))
    ):
        return ok(RECOVERY, "Channels have positions: what is missed is replayed.", kind="replay")
    if channel.get("ok") is False:
        return ok(
            RECOVERY,
            "Subscriptions are confirmed; the channel for the test itself is refused.",
            kind="replay",
        )
    return failed(
        RECOVERY,
        Fault.UNSOUND,
        "The server confirms a channel without saying where it stands: nothing can be replayed.",
        "Make its answer hold `epoch` and `offset`, or use --dialect plain.",
    )


def _is_offset(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


async def check_idle(examination: Examination) -> Finding:
    """Keep silent, and see whether anybody between here and the server cuts the connection."""
    target = examination.target
    connection, seconds = examination.joined, target.idle
    if connection.lost.done():
        return skipped(IDLE, _why_lost(connection))
    if seconds <= 0:
        return skipped(IDLE, "Left out: --idle 0.")
    began = time.monotonic()
    await connection.stay_silent(seconds)
    survived = time.monotonic() - began
    if connection.lost.done():
        return _cut(examination, connection, survived)
    if (connection.acknowledges or connection.pongs) and not await _answers(target, connection):
        return failed(
            IDLE,
            Fault.UNSOUND,
            f"After {survived:.1f} s of silence the connection is dead, and nobody has said so.",
            f"A NAT or a firewall has forgotten it: set `heartbeat_interval` below {survived:.0f} s.",
            survived=round(survived, 1),
        )
    interval = None if examination.handshake is None else examination.handshake.ping_interval
    if interval is None or seconds > interval:
        said, remedy = f"Survives {survived:g} s, with the server's pings.", ""
    else:
        said = f"Survives {survived:.1f} s of silence; the server pings every {interval:g} s."
        remedy = f"To try a whole interval: --idle {int(interval) + 2}"
    return ok(IDLE, said, remedy, survived=round(survived, 1))


async def _answers(target: Target, connection: NamespaceConnection) -> bool:
    event = target.config.dialect.heartbeat_event
    if connection.acknowledges and event is not None:
        return await connection.ask(event) is not None
    return await connection.ping()


def _cut(examination: Examination, connection: NamespaceConnection, survived: float) -> Finding:
    error = connection.lost.result()
    interval = None if examination.handshake is None else examination.handshake.ping_interval
    details = {"survived": round(survived, 1)}
    if isinstance(error, HeartbeatTimeoutError):
        return failed(
            IDLE,
            Fault.UNSOUND,
            f"The server announces pings every {interval or 0:g} s, and sends none: {error.message}",
            "The server hangs, or a proxy holds back what it sends: switch the proxy's buffering off.",
            **details,
        )
    if isinstance(error, ServerDisconnectError):
        return failed(
            IDLE,
            Fault.UNSOUND,
            f"The server ends the connection after {survived:.1f} s of silence. {error.message}",
            "Look at the server's log; a reverse proxy may also close like this when it reloads.",
            **details,
        )
    pings = "" if interval is None else f", and the server pings only every {interval:g} s"
    return failed(
        IDLE,
        Fault.UNSOUND,
        f"A silent connection is cut after {survived:.1f} s{pings}: a proxy's idle time-out.",
        "Raise the proxy's time-out (nginx: proxy_read_timeout) above the server's pingInterval, or "
        f"lower that below {survived:.0f} s.",
        **details,
    )


def _ended(check: str, connection: NamespaceConnection) -> Finding:
    error = connection.lost.result()
    remedy = "Look at the server's log for why it ended: right after the connection was accepted."
    return failed(check, Fault.UNSOUND, f"The connection ended. {error.message}", remedy)


def _why_lost(connection: NamespaceConnection) -> str:
    return f"The connection has ended: {connection.lost.result().message}"
