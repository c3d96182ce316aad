"""Addresses: what is wrong with one, and how it may be shown."""

from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from attrs import frozen

_SECRET_QUERY_KEYS: Final = frozenset(
    {"token", "access_token", "auth", "key", "apikey", "api_key", "password"}
)


@frozen(kw_only=True)
class Endpoint:
    """Something to poll in FALLBACK.

    Attributes:
        url: Absolute, or a path on the server. The token is sent only to the server's own origin.
        event: The event as which changed data reaches the handlers; by default the path itself.
    """

    url: str
    event: str

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Read ``event=url`` or ``url``.

        Args:
            text: For example ``bookings=/api/bookings``, ``/api/bookings`` or ``https://host/api``.
        """
        event, sign, url = text.strip().partition("=")
        if not sign or "/" in event:  # the `=` belongs to a query
            event, url = "", text.strip()
        parts = _split(url)  # what cannot be split is left for the check to refuse
        return cls(url=url, event=event or (parts and parts.path) or url)


def check_server_url(url: object) -> str | None:
    """Return what is wrong with a server's address, and what to use instead; ``None`` if nothing is."""
    if not isinstance(url, str) or not url.strip():
        return "must be an address such as https://example.org"
    parts = _split(url)
    if parts is None:
        return "is not an address: its host or port cannot be read"
    if parts.scheme in {"ws", "wss"}:
        instead = parts._replace(scheme={"ws": "http", "wss": "https"}[parts.scheme]).geturl()
        return (
            f"is a raw WebSocket address, and a Socket.IO server is not one: use {shown_address(instead)} "
            "(Socket.IO opens the WebSocket itself)"
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        return "must begin with http:// or https:// and name a host"
    if parts.username is not None or parts.password is not None:
        return "must not hold credentials, which would end in logs: give them as `token=`"
    if any(pair.partition("=")[0].lower() in _SECRET_QUERY_KEYS for pair in parts.query.split("&")):
        return "must not hold a secret in its query, which would end in logs: give it as `token=`"
    return None


def _split(url: str) -> SplitResult | None:
    """Return the parts of an address, or ``None`` where it has none; ``urlsplit`` reads the port late."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def shown_address(url: str) -> str:
    """Return an address fit to be shown: without credentials and query."""
    parts = _split(url)
    if parts is None or not parts.netloc:  # not an address at all: what is secret in it cannot be told
        return "..." if set(url) & set("@?#") else url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def check_endpoint(endpoint: Endpoint, server_url: str) -> str | None:
    """Return what is wrong with something to poll; ``None`` if nothing is."""
    parts = _split(urljoin(server_url, endpoint.url)) if _split(endpoint.url) else None
    if parts is None or parts.scheme not in {"http", "https"} or not endpoint.url:
        return "must be a path or an http(s) address, such as bookings=/api/bookings"
    if parts.username is not None or parts.password is not None:
        return "must not hold credentials, which would end in logs"
    return None
