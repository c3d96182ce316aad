"""Tokens: fetched before they are needed, by one fetch at a time however many callers wait."""

import asyncio
import base64
import binascii
import inspect
import json
import math
import traceback
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from realtime_fsm.engine.flight_recorder import FlightRecorder, Kind
from realtime_fsm.engine.port import RandomSource, Token, TokenSource, WallClock
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.errors import AuthenticationError, RealtimeError, TokenSourceError

EARLIEST, LATEST = 0.7, 0.9
"""A token is refreshed at a random point between these fractions of its life, so that a fleet spreads out."""

LEAST_REFRESH: Final = 1.0
"""Seconds until a token is refreshed, at least."""

_SHORT: Final = 15.0
_MOST_DOUBLINGS: Final = 6
"""Tokens that are to be refreshed sooner than ``_SHORT``, one after another, mean a wrong clock more often
than a short life: for each the least time until the next doubles, up to a minute."""

_LONGEST: Final = 366 * 86_400.0
"""No timer needs to be longer, and not every event loop takes a longer one."""

_JWT_PARTS: Final = 3


class TokenProvider:
    """Gives the current token, and a new one when it is refused or about to expire.

    Args:
        source: Where tokens come from; ``None`` for a client without an identity.
        statistics: What it counts into.
        recorder: Remembers the fetches.
        wall: The wall clock, in which expiries are given.
        random: Spreads the refreshes.
        timeout: Bound of one fetch, seconds.
        secrets: Every token is added to it, so that nobody shows one.
    """

    def __init__(
        self,
        source: TokenSource | None,
        *,
        statistics: Statistics,
        recorder: FlightRecorder,
        wall: WallClock,
        random: RandomSource,
        timeout: float,
        secrets: deque[str],
    ) -> None:
        self._source = source
        self._statistics = statistics
        self._recorder = recorder
        self._wall = wall
        self._random = random
        self._timeout = timeout
        self._token: Token | None = None
        self.secrets = secrets
        self._refresh_at: float | None = None  # on the loop's clock: the wall's may jump, or be wrong
        self._short_ones = 0  # in a row
        self._flight: asyncio.Task[Token] | None = None

    @property
    def can_refresh(self) -> bool:
        """True where another token could be had: the source is not a fixed one."""
        return callable(self._source)

    @property
    def refresh_in(self) -> float | None:
        """Seconds until the token should be refreshed; ``None`` where nobody knows, or it is a fixed one."""
        if self._refresh_at is None:
            return None
        return max(0.0, self._refresh_at - asyncio.get_running_loop().time())

    async def current(self) -> Token | None:
        """Return a token that is fit to dial with.

        One whose expiry is known is kept until it should be refreshed; others are fetched for every dial.

        Raises:
            TokenSourceError: If the source fails, or takes too long.
            AuthenticationError: If it gives something that is not a token.
        """
        if self._source is None:
            return None
        if self._token is not None and self.refresh_in:
            return self._token
        return await self.refresh()

    async def refresh(self) -> Token | None:
        """Return a new token. Callers share one fetch; a cancelled caller leaves it to the others.

        Raises:
            TokenSourceError: If the source fails, or takes too long.
            AuthenticationError: If it gives something that is not a token.
        """
        if self._source is None:
            return None
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._fetch(self._source), name="realtime_fsm token")
            self._flight.add_done_callback(_retrieve)
        return await asyncio.shield(self._flight)

    def forget(self) -> None:
        """Do not use the present token again: it was refused."""
        self._token = self._refresh_at = None

    async def close(self) -> None:
        """End a running fetch. The caller bounds it."""
        if self._flight is not None and not self._flight.done():
            self._flight.cancel()
            await asyncio.wait({self._flight})

    async def _fetch(self, source: TokenSource) -> Token:
        failure: TokenSourceError | None = None
        given: object = None
        try:
            async with asyncio.timeout(self._timeout):
                given = source() if callable(source) else source
                if inspect.isawaitable(given):
                    given = await given
        except TimeoutError:
            failure = TokenSourceError(f"The token source gave nothing within {self._timeout} s.")
        except RealtimeError:
            raise
        except Exception as error:  # noqa: BLE001 - it is the user's code, and becomes an error of ours
            failure = TokenSourceError(f"The token source raised {type(error).__name__}{_place(error)}.")
        if failure is not None:
            self._recorder.note(Kind.TOKEN, f"no token: {failure.message}")
            # Out here, so that the original is not even its context: its words may hold the secret that it
            # failed with, and a traceback would repeat them.
            raise failure
        token = _checked(given)
        self._statistics.token_refreshes += 1
        self.secrets.append(token.value)
        self._token, self._refresh_at = token, None
        life = life_of(token, self._wall()) if self.can_refresh else None
        if life is not None:
            due = self._refreshed_after(life, is_told=_tells_its_life(token))
            self._refresh_at = asyncio.get_running_loop().time() + due
        self._recorder.note(Kind.TOKEN, f"a token was fetched{_due(self.refresh_in)}")
        return token

    def _refreshed_after(self, life: float, *, is_told: bool) -> float:
        """Return the seconds after which a token is refreshed that has just been fetched.

        Args:
            life: Of the token.
            is_told: Whether the token itself tells it; otherwise a wrong clock may have made it short.
        """
        due = life * self._random.uniform(EARLIEST, LATEST)
        if due >= _SHORT or is_told:
            self._short_ones = 0
            return max(due, LEAST_REFRESH)
        due = max(due, LEAST_REFRESH * 2.0 ** min(self._short_ones, _MOST_DOUBLINGS))
        self._short_ones += 1
        return due


def life_of(token: Token, now: float) -> float | None:
    """Return the seconds that a token lives which has just been fetched; ``None`` where that is not known.

    ``expires_at - issued_at`` where it tells both, because both are of the same clock. Otherwise what is left
    of it by this machine's clock, which may be wrong: 0 where it seems to have expired before.

    Args:
        token: The token.
        now: On this machine's wall clock.
    """
    expires_at, issued_at = _moment(token.expires_at), _moment(token.issued_at)
    if expires_at is None:
        return None
    life = expires_at - (issued_at if issued_at is not None and _tells_its_life(token) else now)
    return min(max(0.0, life), _LONGEST)


def _tells_its_life(token: Token) -> bool:
    """Tell whether a token says both when it was issued and when it ends, in an order that can be."""
    expires_at, issued_at = _moment(token.expires_at), _moment(token.issued_at)
    return expires_at is not None and issued_at is not None and issued_at < expires_at


def _moment(given: object) -> float | None:
    """Return a moment that somebody told, or ``None`` where it is none: no number, or none that is finite."""
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return None
    try:
        moment = float(given)
    except OverflowError:
        return None
    return moment if math.isfinite(moment) else None


def _due(refresh_in: float | None) -> str:
    return "" if refresh_in is None else f"; the next one follows in {refresh_in:.1f} s"


def _place(error: Exception) -> str:
    """Return where an error was raised: what may be said of it, so that it can be found."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" (in {Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _checked(given: object) -> Token:
    """Return what a source gave as a ``Token``, with the expiry that a JWT tells of itself."""
    token = given if isinstance(given, Token) else None
    if isinstance(given, str):
        claims = _jwt_claims(given)
        token = Token(
            value=given, expires_at=_moment(claims.get("exp")), issued_at=_moment(claims.get("iat"))
        )
    if token is None or not isinstance(token.value, str):
        raise AuthenticationError(
            f"The token source gave a {type(given).__name__}, not a token.",
            remedy="It must return a string or a Token (or a coroutine of one).",
        )
    for name in ("expires_at", "issued_at"):
        moment = getattr(token, name)
        if moment is not None and (isinstance(moment, bool) or not isinstance(moment, (int, float))):
            raise AuthenticationError(
                f"The token source gave a token whose {name} is a {type(moment).__name__}.",
                remedy="It must be seconds since the Unix epoch, such as `time.time() + 3600`, or None.",
            )
    if not token.value or not token.value.isprintable() or " " in token.value:
        raise AuthenticationError(
            "The token source gave an empty token, or one with spaces or control characters.",
            remedy="Return the bare token, without a prefix such as 'Bearer'.",
        )
    return token


def jwt_expiry(value: str) -> float | None:
    """Return the ``exp`` of a JSON Web Token, read without trust; ``None`` if it is not one.

    Args:
        value: The encoded token.

    Returns:
        Seconds since the Unix epoch.

    Source:
        RFC 7519, section 4.1.4.
    """
    return _moment(_jwt_claims(value).get("exp"))


def _jwt_claims(value: str) -> Mapping[str, Any]:
    """Return the claims of a JSON Web Token, read without trust; none if it is not one."""
    parts = value.split(".")
    if len(parts) != _JWT_PARTS:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    # Whoever made it up: nested too deeply, for example.
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _retrieve(task: asyncio.Task[Token]) -> None:
    """Look at the error, which all waiters have had: it must not be reported as lost when none waited."""
    if not task.cancelled():
        task.exception()
