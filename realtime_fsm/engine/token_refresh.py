"""CONNECTED: renew the token before it expires, without giving the live connection up."""

import asyncio
import logging
from typing import Final

from realtime_fsm.engine.answer import refusal_text
from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.payload import encode
from realtime_fsm.engine.port import Token
from realtime_fsm.machine.errors import AuthenticationError, ConnectionLostError, RealtimeError
from realtime_fsm.machine.redaction import redacted

_LEAST_PAUSE: Final = 1.0
"""Seconds between two refreshes at least, so that a source of short-lived tokens is not asked in a loop."""

_MOST_DOUBLINGS: Final = 5
"""While the source fails the pause doubles, up to half a minute."""

_logger = logging.getLogger("realtime_fsm.token")


async def token_refresh(parts: Components, stay: Stay) -> None:
    """Refresh early; where the dialect can, tell the server at once, otherwise at the next connect.

    A refresh that fails is reported and tried again; the connection lives on until the server ends it.
    """
    failures = 0
    while (delay := parts.tokens.refresh_in) is not None:
        await asyncio.sleep(max(delay, _LEAST_PAUSE * 2 ** min(failures, _MOST_DOUBLINGS)))
        try:
            token = await parts.tokens.refresh()
        except RealtimeError as error:
            failures += 1
            parts.recovery.handle(error)
            continue
        failures = 0
        _logger.debug("the token was refreshed")
        if token is not None and stay.link is not None:
            await _reauthenticate(parts, stay.link, token)


async def _reauthenticate(parts: Components, link: Link, token: Token) -> None:
    dialect = parts.config.dialect
    if dialect.reauthenticate_event is None:
        return
    body = [dialect.reauthenticate_event, {dialect.token_key: token.value}]
    link.secrets.add(token.value)
    payload = encode(body, what="The token", max_bytes=parts.config.max_message_bytes)
    try:
        async with asyncio.timeout(parts.config.ack_timeout):
            args = await link.request(payload)
    except (TimeoutError, ConnectionLostError):
        return  # the new token is used at the next connect
    answer = args[0] if args else None
    if isinstance(answer, dict) and answer.get("ok") is False:
        said = redacted(refusal_text(answer.get("error")), link.secrets)
        parts.recovery.handle(AuthenticationError(f"The server refused the refreshed token: {said}."))
