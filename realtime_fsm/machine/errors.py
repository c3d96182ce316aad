"""Every error of the library, in one tree.

::

    RealtimeError
     +-- TransportError                 connection      the network, or a server that is not available
     |    +-- ServerUnreachableError                    nobody answers: refused, no route, no such name, TLS
     |    +-- ServerUnavailableError                    somebody answers that it cannot now: 429, 5xx,
     |    |                                            a gateway's 403
     |    +-- ConnectTimeoutError                       the attempt took longer than `connection_timeout`
     |    +-- ConnectionLostError                       an open connection ended
     |         +-- HeartbeatTimeoutError                ... because the peer fell silent
     |         +-- ServerDisconnectError                ... because the server closed it on purpose
     +-- AuthenticationError            authentication  the server refuses the identity
     |    +-- TokenSourceError                          no token could be had
     +-- ProtocolError                  protocol        the peer does not speak what it should
     |    +-- NotSocketIOError                          it is not a Socket.IO server, or not at this path
     |    +-- NamespaceRefusedError                     it has no such namespace
     |    +-- RedirectRefusedError                      it sends the client elsewhere
     |    +-- MalformedFrameError                       it sent something that cannot be decoded
     |    +-- PayloadTooLargeError                      it sent more than is allowed
     +-- ApplicationError               application     the caller's, or the business logic's
     |    +-- ConfigurationError (ValueError)
     |    +-- InvalidArgumentError (ValueError)         an event name, channel or payload that cannot be sent
     |    +-- MissingExtraError (ImportError)           an optional dependency is not installed
     |    +-- OutboxFullError
     |    +-- OutboxStorageError                        the file of the outbox: full disk, locked, corrupt
     |    +-- MetricsStorageError                       the file of the metrics, likewise
     |    +-- DeliveryError                             what became of a message that was not delivered
     |    +-- CallTimeoutError (TimeoutError)
     |    +-- SubscriptionRefusedError
     |    +-- EventsMissedError                         events that cannot be replayed, and no hook
     |    +-- LaggedError                               an observer that did not keep up
     |    +-- UnsupportedDeliveryError
     |    +-- ClosedError                               used after it was closed
     |    +-- IllegalTransitionError                    a move that is not in the table
     |    +-- WrongLoopError                            used on another event loop, or in another thread
     +-- InternalError                  application     a bug in the library; please report it

Each says its category, whether trying again can help (``retryable``), and what the user can do
(``remedy``). Errors of the libraries below are translated once, in ``realtime_fsm.adapters``, and kept as
``__cause__``. Messages never hold a secret.
"""

from copy import copy
from enum import Enum
from typing import Any, ClassVar, Self


class ErrorCategory(Enum):
    """The four categories of errors, each with a recovery of its own."""

    CONNECTION = "connection"
    AUTHENTICATION = "authentication"
    PROTOCOL = "protocol"
    APPLICATION = "application"


class RealtimeError(Exception):
    """The root. ``str()`` of it is the message followed by the remedy.

    Args:
        message: What happened, with names and values.
        remedy: What the user can do; the class has a default.
        retryable: Whether trying again can help; the class has a default.
        retry_after: Seconds that the server asks to wait (HTTP ``Retry-After``), or ``None``.
    """

    category: ClassVar[ErrorCategory] = ErrorCategory.APPLICATION
    default_retryable: ClassVar[bool] = False
    default_remedy: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message = message
        self.remedy = self.default_remedy if remedy is None else remedy
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after = retry_after
        super().__init__(f"{message} {self.remedy}".strip())

    def with_remedy(self, remedy: str) -> Self:
        """Return the same error with another remedy: what can be done about it has changed.

        Args:
            remedy: What the user can do.
        """
        other = copy(self)
        other.remedy = remedy
        other.args = (f"{self.message} {remedy}".strip(),)
        other.__cause__ = self.__cause__
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Let errors be copied and pickled, whatever their constructors take."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[RealtimeError], args: tuple[Any, ...], state: dict[str, Any]) -> RealtimeError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def without_frames(error: BaseException | None) -> None:
    """Cut the frames off an error and its causes, so that keeping it keeps nothing else alive.

    Args:
        error: It and everything that it came from.
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            waiting += [one.__cause__, one.__context__]


class TransportError(RealtimeError):
    """The network, or a server that is not available."""

    category = ErrorCategory.CONNECTION
    default_retryable = True
    default_remedy = "It is tried again by itself."


class ServerUnreachableError(TransportError):
    """Nobody answers at the address."""

    default_remedy = "Check that the server runs and that `server_url` and the network are right."


class ServerUnavailableError(TransportError):
    """The server answers that it cannot serve now.

    Args:
        message: Which server, and how it said so.
        status: Of the HTTP answer, where it was one.
        retry_after: Seconds that it asks to wait.
        remedy: What the user can do; the class has a default.
    """

    default_remedy = "The server is overloaded or down behind its proxy; it is tried again by itself."

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        remedy: str | None = None,
    ) -> None:
        self.status = status
        super().__init__(message, retry_after=retry_after, remedy=remedy)


class ConnectTimeoutError(TransportError):
    """An attempt took longer than it may."""

    default_remedy = "The server stays silent, or is too slow: see to it, or raise `connection_timeout`."


class ConnectionLostError(TransportError):
    """An open connection ended."""


class HeartbeatTimeoutError(ConnectionLostError):
    """The peer of an open connection fell silent."""

    default_remedy = "The network path is dead, or the server hangs; it is reconnected by itself."


class ServerDisconnectError(ConnectionLostError):
    """The server closed the connection on purpose."""

    default_remedy = "See the server's log for its reason; it is reconnected by itself."


class AuthenticationError(RealtimeError):
    """The server refuses the identity."""

    category = ErrorCategory.AUTHENTICATION
    default_remedy = "Provide a valid token, then call `retry_now()`."


class TokenSourceError(AuthenticationError):
    """No token could be had from the token source."""

    default_retryable = True
    default_remedy = "Mend the token source; it is asked again at the next attempt."


class ProtocolError(RealtimeError):
    """The peer does not speak what it should."""

    category = ErrorCategory.PROTOCOL
    # A proxy that answers with its own page during a deployment looks just like a wrong address.
    default_retryable = True
    default_remedy = "It is tried again by itself, in case a proxy stood in for the server."


class NotSocketIOError(ProtocolError):
    """Whoever answers is not a Socket.IO server, or not at this path."""

    default_remedy = "Check `server_url` and `socketio_path`: the server must speak Socket.IO (Engine.IO 4)."


class NamespaceRefusedError(ProtocolError):
    """The server has no such namespace, or does not let anybody in."""

    default_retryable = False
    default_remedy = "Check `namespace`, and the server's connection handler; then call `retry_now()`."


class RedirectRefusedError(ProtocolError):
    """The server answers with a redirect, which is refused: it would carry the token elsewhere."""

    default_retryable = False
    default_remedy = "Set `server_url` (or the endpoint) to the final address."


class MalformedFrameError(ProtocolError):
    """The peer sent something that cannot be decoded."""


class PayloadTooLargeError(ProtocolError):
    """The peer sent more than is allowed."""

    default_remedy = "Raise `max_inbound_bytes`, or make the server send less at a time."


class ApplicationError(RealtimeError):
    """The caller's, or the business logic's."""


class ConfigurationError(ApplicationError, ValueError):
    """The configuration is wrong; ``problems`` lists everything that is, each with its remedy."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        count = len(problems)
        head = "The configuration is wrong" if count == 1 else f"The configuration has {count} problems"
        super().__init__(f"{head}: " + "; ".join(problems))


class InvalidArgumentError(ApplicationError, ValueError):
    """An event name, a channel or a payload that cannot be sent."""


class MissingExtraError(ApplicationError, ImportError):
    """An optional dependency is not installed.

    Args:
        extra: Name of the extra that brings it.
        what: What needs it.
    """

    def __init__(self, *, extra: str, what: str) -> None:
        super().__init__(
            f"{what} needs the extra [{extra}].",
            remedy=f"Install it: pip install 'realtime-fsm[{extra}]'.",
        )


class OutboxFullError(ApplicationError):
    """The outbox is full, and its policy is to refuse. Nothing was stored."""

    default_retryable = True
    default_remedy = "Slow down, wait for receipts, or raise `outbox_max_messages` or `outbox_max_bytes`."


class OutboxStorageError(ApplicationError):
    """The file of the outbox cannot be used: the disk is full, another client owns it, or it is corrupt."""

    default_retryable = True
    default_remedy = "Check the disk, the permissions, and that no other client uses the same `outbox_path`."


class MetricsStorageError(ApplicationError):
    """The file of the metrics database cannot be used. The connection does not care; records are lost."""

    default_retryable = True
    default_remedy = "Check the disk and the permissions; it is tried again by itself."


class DeliveryError(ApplicationError):
    """A message was accepted, and was not delivered. Raised by awaiting its receipt.

    Args:
        message: What became of it.
        outcome: The same as one word: the value of its ``Outcome``.
        remedy: What the user can do.
    """

    def __init__(self, message: str, *, outcome: str, remedy: str = "") -> None:
        self.outcome = outcome
        super().__init__(message, remedy=remedy)


class CallTimeoutError(ApplicationError, TimeoutError):
    """A call got no answer in time. Whether the server acted on it is not known."""

    default_retryable = True
    default_remedy = "The server's handler must call back; raise `timeout` if it is slow."


class SubscriptionRefusedError(ApplicationError):
    """The server refused a channel."""

    default_remedy = "Check the channel's name and the permissions of the token."


class EventsMissedError(ApplicationError):
    """Events were missed that the server cannot replay, and there is no hook that loads them anew."""

    default_remedy = "Load the present state, and register `on_resync` so that it is done by itself."


class LaggedError(ApplicationError):
    """An observer did not keep up, and its bounded queue overflowed. It is told, never skipped silently."""

    default_remedy = "Read faster, or hand the work to a task of your own."


class UnsupportedDeliveryError(ApplicationError):
    """The dialect or this version does not offer the asked-for delivery."""


class ClosedError(ApplicationError):
    """Used after it was closed."""

    default_remedy = "Call `connect()` first."


class WrongLoopError(ApplicationError):
    """Used on another event loop than its own, or in another thread."""

    default_remedy = (
        "Call it there: `asyncio.run_coroutine_threadsafe(client.emit(...), loop)` for a coroutine, "
        "`loop.call_soon_threadsafe(...)` for the rest. After `disconnect()` it may be used on any loop."
    )


class IllegalTransitionError(ApplicationError):
    """A trigger was fired that is not legal in the state.

    Args:
        state: Value of the state.
        trigger: Value of the trigger.
        legal: Values of the triggers that have a row in this state.
    """

    def __init__(self, *, state: str, trigger: str, legal: tuple[str, ...]) -> None:
        self.state = state
        self.trigger = trigger
        self.legal = legal
        super().__init__(
            f"The trigger {trigger!r} is illegal in the state {state!r}.",
            remedy=f"Legal here: {', '.join(legal) or 'nothing'}.",
        )


class InternalError(RealtimeError):
    """Something happened that the library did not foresee: a bug in it."""

    default_retryable = True
    default_remedy = "This is a bug in realtime_fsm; please report it with its traceback."
