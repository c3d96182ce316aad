"""The websocket, which proxies like to refuse, to swallow and to cut."""

import asyncio
from http import HTTPStatus
from typing import Any, Final

import aiohttp

from realtime_fsm.adapters import error_translation, frame
from realtime_fsm.adapters.handshake import Handshake
from realtime_fsm.doctor.finding import Fault, Finding, failed, ok, skipped
from realtime_fsm.doctor.patient import Patient
from realtime_fsm.machine.errors import RealtimeError

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
