"""What needs an open connection: the namespace, the identity, the heartbeat, the recovery and silence."""

import asyncio
import time
from http import HTTPStatus
from typing import Any, Final

import aiohttp

from realtime_fsm.adapters import error_translation, frame
from realtime_fsm.adapters.frame import Handshake
from realtime_fsm.doctor.finding import Fault, Finding, failed, from_error, ok, skipped, warning
from realtime_fsm.doctor.patient import Patient, Visit
from realtime_fsm.engine.token import jwt_expiry
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectTimeoutError,
    HeartbeatTimeoutError,
    NamespaceRefusedError,
    RealtimeError,
    ServerDisconnectError,
)

# The websocket, which proxies like to refuse, to swallow and to cut.

WEBSOCKET: Final = "websocket"

_GOODBYE: Final = 0.5
_NEEDS_UPGRADES: Final = (
    "Make the proxy pass upgrades on; nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    'proxy_set_header Connection "upgrade";'
)


async def check_websocket(patient: Patient) -> Finding:
    """Open a websocket as the client does, and wait for the OPEN packet to come through it."""
    if WEBSOCKET not in patient.config.transports:
        return skipped(WEBSOCKET, "`transports` leaves websocket out.")
    try:
        async with asyncio.timeout(patient.timeout), patient.session() as session:
            finding = await _opened(patient, session)
    except TimeoutError:
        return _blocked(
            patient,
            f"Nothing answers the request for a websocket within {patient.timeout:g} s: a proxy swallows it.",
        )
    except (aiohttp.ClientError, OSError, RealtimeError) as error:
        return _not_opened(patient, error)
    if finding.fault is None:
        patient.transports.insert(0, WEBSOCKET)
        patient.transports.sort(key=patient.config.transports.index)
    return finding


async def _opened(patient: Patient, session: aiohttp.ClientSession) -> Finding:
    websocket = await session.ws_connect(
        patient.endpoint(WEBSOCKET),
        max_msg_size=patient.config.max_inbound_bytes,
        timeout=aiohttp.ClientWSTimeout(ws_close=_GOODBYE),
    )
    try:
        try:
            async with asyncio.timeout(patient.timeout / 2):
                message = await websocket.receive()
        except TimeoutError:
            return _blocked(patient, "A websocket opens, and nothing comes through it.")
        return _first_frame(patient, message)
    finally:
        await websocket.close()


def _first_frame(patient: Patient, message: aiohttp.WSMessage) -> Finding:
    text: Any = message.data
    if message.type is not aiohttp.WSMsgType.TEXT:
        code = f" (code {text})" if message.type is aiohttp.WSMsgType.CLOSE else ""
        return _blocked(patient, f"A websocket opens, and is closed at once{code}.")
    handshake = Handshake.parse(text[1:]) if text.startswith(frame.OPEN) else None
    if handshake is None:
        return failed(
            WEBSOCKET,
            Fault.UNSOUND,
            "A websocket opens, and what comes first is not an Engine.IO OPEN packet.",
            "Check `socketio_path` (--path): another websocket server answers there.",
        )
    patient.handshake = patient.handshake or handshake
    return ok(WEBSOCKET, "A websocket opens, and the server's first packet comes through it.")


def _not_opened(patient: Patient, error: Exception) -> Finding:
    if isinstance(error, aiohttp.WSServerHandshakeError):
        status = error.status
        if status == HTTPStatus.OK:
            said = "The request for a websocket is answered like any other (HTTP 200): its upgrade is lost."
        elif status == HTTPStatus.SWITCHING_PROTOCOLS:
            said = f"The answer to the upgrade is broken: {error_translation.words(error.message)}."
        else:
            said = f"The upgrade to a websocket is refused (HTTP {status})."
        return _blocked(patient, said, status=status)
    translated = error_translation.from_exception(error, url=patient.config.server_url)
    return _blocked(patient, f"No websocket opens: {translated.message}")


def _blocked(patient: Patient, said: str, **details: Any) -> Finding:
    """Return that there is no websocket, and what the client does then."""
    then = " Polling works, and is used instead: slower." if "polling" in patient.transports else ""
    return failed(WEBSOCKET, Fault.UNSOUND, said + then, _NEEDS_UPGRADES, **details)


NAMESPACE: Final = "namespace"
AUTHENTICATION: Final = "authentication"
HEARTBEAT: Final = "heartbeat"
RECOVERY: Final = "recovery"
IDLE: Final = "idle"

_CHANNEL: Final = "realtime-fsm-doctor"
"""Subscribed to for a moment; nobody publishes in it."""

_SLOW: Final = 1.0


async def check_namespace(patient: Patient) -> Finding:
    """Join the namespace, with the token where there is one."""
    if not patient.transports:
        return failed(
            NAMESPACE,
            Fault.UNSOUND,
            "No transport works: there is nothing to connect over.",
            "Mend the handshake over polling or the websocket first; see above.",
        )
    visit = patient.visit = Visit(patient)
    await visit.begin()
    name, error = patient.config.namespace, visit.error
    if error is None or isinstance(error, AuthenticationError):
        return ok(
            NAMESPACE, f"The namespace {name} answers over {visit.transport}.", transport=visit.transport
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


async def check_authentication(patient: Patient) -> Finding:
    """Say what became of the identity when the namespace was joined."""
    visit = _visit(patient)
    if visit.error is None:
        if patient.token is None:
            return ok(AUTHENTICATION, "The server lets clients in without a token.", token=False)
        return ok(AUTHENTICATION, f"The server lets the client in with {patient.token_name}.", token=True)
    said = visit.error.message.replace("..", ".")  # the server may have ended its words with one
    if patient.token is None:
        return failed(
            AUTHENTICATION,
            Fault.REFUSED,
            f"No token was given, and the server wants one. {said}",
            "Put a token into an environment variable, and name it: --token-env NAME",
            token=False,
        )
    left = _seconds_left(patient.token)
    if left is not None and left <= 0:
        return failed(
            AUTHENTICATION,
            Fault.REFUSED,
            f"{_capital(patient.token_name)} expired {-left:.0f} s ago. {said}",
            "Get a fresh token; if it is fresh, set the clocks of this machine and of its issuer.",
            token=True,
        )
    key = patient.config.dialect.token_key
    return failed(
        AUTHENTICATION,
        Fault.REFUSED,
        f"The server refuses {patient.token_name}. {said}",
        f"Check that it is whole, meant for this server, and expected as `auth.{key}` of the connection.",
        token=True,
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _seconds_left(token: str) -> float | None:
    """Return how long a JSON Web Token still lasts by its own words; ``None`` where it does not say."""
    expiry = jwt_expiry(token)
    return None if expiry is None else expiry - time.time()


async def check_heartbeat(patient: Patient) -> Finding:
    """Ask for a sign of life, as the engine does when the connection falls silent."""
    visit, event = _visit(patient), patient.config.dialect.heartbeat_event
    began = time.monotonic()
    answer = None if event is None else await visit.ask(event)
    took = time.monotonic() - began
    if visit.lost.done():
        return _ended(HEARTBEAT, visit)
    if answer is not None:
        visit.acknowledges = True
        milliseconds = round(took * 1000, 1)
        if took > _SLOW:
            return warning(
                HEARTBEAT,
                f"`{event}` is acknowledged, but only after {took:.1f} s.",
                "The server or the way to it is overloaded: look at its load, and at what blocks its loop.",
                milliseconds=milliseconds,
            )
        return ok(HEARTBEAT, f"`{event}` is acknowledged ({took * 1000:.0f} ms).", milliseconds=milliseconds)
    return await _unacknowledged(patient, visit, event)


async def _unacknowledged(patient: Patient, visit: Visit, event: str | None) -> Finding:
    pongs = await visit.ping()
    if visit.lost.done():
        return _ended(HEARTBEAT, visit)
    if event is None and pongs:
        return ok(HEARTBEAT, "Pings of the websocket are answered; the dialect has no heartbeat of its own.")
    within = f"within {patient.timeout:g} s"
    remedy = f"Add a handler of `{event}` to the server that calls its acknowledgement back."
    if patient.config.dialect.confirms_subscriptions and event is not None:
        return failed(
            HEARTBEAT,
            Fault.UNSOUND,
            f"The server does not acknowledge `{event}` {within}, although its dialect promises that.",
            f"{remedy} If it is no reference backend, use --dialect plain.",
        )
    if pongs or visit.transport == "polling":
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


async def check_recovery(patient: Patient) -> Finding:
    """See whether what happens during an outage can be had afterwards."""
    visit, dialect = _visit(patient), patient.config.dialect
    if visit.lost.done():
        return skipped(RECOVERY, _why_lost(visit))
    if dialect.positions:
        return await _replays(visit, dialect.subscribe_event)
    if not dialect.recovers_sessions:
        return skipped(RECOVERY, f"The dialect {dialect.name} asks for no recovery.")
    if isinstance(visit.welcome.get("pid"), str):
        return ok(RECOVERY, "The server offers Socket.IO's connection state recovery.", kind="session")
    return warning(
        RECOVERY,
        "The server replays nothing: events that happen during an outage are missed.",
        "Register `on_resync` to load the present state. Node's server: switch connectionStateRecovery on; "
        "a reference backend: --dialect reference.",
        kind=None,
    )


async def _replays(visit: Visit, event: str) -> Finding:
    answer = await visit.ask(event, {"channels": [_CHANNEL]})
    if visit.lost.done():
        return _ended(RECOVERY, visit)
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


async def check_idle(patient: Patient) -> Finding:
    """Keep silent, and see whether anybody between here and the server cuts the connection."""
    visit, seconds = _visit(patient), patient.idle
    if visit.lost.done():
        return skipped(IDLE, _why_lost(visit))
    if seconds <= 0:
        return skipped(IDLE, "Left out: --idle 0.")
    began = time.monotonic()
    await visit.stay_silent(seconds)
    survived = time.monotonic() - began
    if visit.lost.done():
        return _cut(patient, visit, survived)
    if (visit.acknowledges or visit.pongs) and not await _answers(patient, visit):
        return failed(
            IDLE,
            Fault.UNSOUND,
            f"After {survived:.1f} s of silence the connection is dead, and nobody has said so.",
            f"A NAT or a firewall has forgotten it: set `heartbeat_interval` below {survived:.0f} s.",
            survived=round(survived, 1),
        )
    interval = None if patient.handshake is None else patient.handshake.ping_interval
    if interval is None or seconds > interval:
        said, remedy = f"Survives {survived:g} s, with the server's pings.", ""
    else:
        said = f"Survives {survived:.1f} s of silence; the server pings every {interval:g} s."
        remedy = f"To try a whole interval: --idle {int(interval) + 2}"
    return ok(IDLE, said, remedy, survived=round(survived, 1))


async def _answers(patient: Patient, visit: Visit) -> bool:
    event = patient.config.dialect.heartbeat_event
    if visit.acknowledges and event is not None:
        return await visit.ask(event) is not None
    return await visit.ping()


def _cut(patient: Patient, visit: Visit, survived: float) -> Finding:
    error = visit.lost.result()
    interval = None if patient.handshake is None else patient.handshake.ping_interval
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


def _ended(check: str, visit: Visit) -> Finding:
    error = visit.lost.result()
    remedy = "Look at the server's log for why it ended: right after the connection was accepted."
    return failed(check, Fault.UNSOUND, f"The connection ended. {error.message}", remedy)


def _why_lost(visit: Visit) -> str:
    return f"The connection has ended: {visit.lost.result().message}"


def _visit(patient: Patient) -> Visit:
    if patient.visit is None:  # pragma: no cover - a failed `namespace` stops the examination
        raise AssertionError("nobody is connected")
    return patient.visit
