"""Handlers as ``socketio.AsyncClient`` keeps them: one for each event, catch-alls, and classes."""

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from socketio import AsyncClientNamespace

H = TypeVar("H", bound=Callable[..., Any])

RESERVED: Final = ("connect", "connect_error", "disconnect", "__disconnect_final")
"""Events that no catch-all handler gets."""

ANY: Final = "*"


class ClientHandlers:
    """The part of ``AsyncClient`` in which handlers are registered and found.

    Attributes:
        handlers: By namespace and event.
        namespace_handlers: By namespace.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, dict[str, Callable[..., Any]]] = {}
        self.namespace_handlers: dict[str, Any] = {}

    @overload
    def on(self, event: str, handler: None = None, namespace: str | None = None) -> Callable[[H], H]: ...
    @overload
    def on(self, event: str, handler: Callable[..., Any], namespace: str | None = None) -> None: ...
    def on(
        self, event: str, handler: Callable[..., Any] | None = None, namespace: str | None = None
    ) -> Callable[[H], H] | None:
        """Register the handler of an event, or return a decorator that does. A second one replaces the first.

        Args:
            event: Its name; ``*`` for every event that has no handler of its own.
            handler: A function or coroutine function.
            namespace: Its namespace; ``*`` for every one that has no handlers of its own.
        """

        def register(given: H) -> H:
            self.handlers.setdefault(namespace or "/", {})[event] = given
            return given

        if handler is None:
            return register
        register(handler)
        return None

    def event(self, *args: Any, **kwargs: Any) -> Any:
        """Register a function as the handler of the event that it is named after; a decorator.

        ``@sio.event`` or ``@sio.event(namespace="/chat")``.
        """
        if len(args) == 1 and not kwargs and callable(args[0]):
            return self.on(args[0].__name__)(args[0])
        return lambda handler: self.on(handler.__name__, *args, **kwargs)(handler)

    def register_namespace(self, namespace_handler: AsyncClientNamespace) -> None:
        """Register an object of a class with a method ``on_<event>`` for each event.

        Raises:
            ValueError: If it is not an ``AsyncClientNamespace``.
        """
        if not isinstance(namespace_handler, AsyncClientNamespace):
            raise ValueError("Not a namespace instance")  # noqa: TRY004 - it is what python-socketio raises
        namespace_handler.client = self
        self.namespace_handlers[namespace_handler.namespace] = namespace_handler

    async def _trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        """Call the handler of an event, if there is one; return what it gives."""
        handler, with_args = self._find(event, namespace, args)
        if handler is not None:
            return await invoke(handler, *fitting(handler, event, with_args))
        owner = self.namespace_handlers.get(namespace)
        if owner is None and (owner := self.namespace_handlers.get(ANY)) is not None:
            args = (namespace, *args)
        return None if owner is None else await owner.trigger_event(event, *args)

    def _find(
        self, event: str, namespace: str, args: tuple[Any, ...]
    ) -> tuple[Callable[..., Any] | None, tuple[Any, ...]]:
        """Return the function that handles an event, and its arguments.

        The order is that of python-socketio: the event in the namespace, any event in it, and only where
        the namespace has no handlers at all, those of any namespace.
        """
        is_plain = event not in RESERVED
        if (own := self.handlers.get(namespace)) is not None:
            if event in own:
                return own[event], args
            return (own[ANY], (event, *args)) if is_plain and ANY in own else (None, args)
        common = self.handlers.get(ANY, {})
        if event in common:
            return common[event], (namespace, *args)
        return (common[ANY], (event, namespace, *args)) if is_plain and ANY in common else (None, args)


def fitting(handler: Callable[..., Any], event: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments that a handler takes: an old one of ``disconnect`` does not take the reason."""
    if event != "disconnect":
        return args
    try:
        inspect.signature(handler).bind(*args)
    except (TypeError, ValueError):
        return args[:-1]
    return args


async def invoke(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function or coroutine function."""
    result = function(*args)
    return await result if inspect.isawaitable(result) else result
