"""The arguments of the commands that are a client of a server, without what they run."""

import argparse

from attrs import frozen


@frozen(kw_only=True)
class ClientRequest:
    """Which client is asked for; each is the argument of its name."""

    url: str
    channels: tuple[str, ...] = ()
    namespace: str = "/"
    dialect: str = "plain"
    token_env: str | None = None


def add_client_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to a command's parser."""
    parser.add_argument("url", metavar="URL", help="the server's address, http:// or https://")
    parser.add_argument(
        "--channel", action="append", default=[], metavar="NAME", help="subscribe to a channel; repeatable"
    )
    parser.add_argument("--namespace", default="/", help="the Socket.IO namespace (default: /)")
    parser.add_argument(
        "--dialect", default="plain", choices=["plain", "reference"], help="the server's conventions"
    )
    parser.add_argument("--token-env", metavar="NAME", help="environment variable that holds the token")


def client_request(parsed: argparse.Namespace) -> ClientRequest:
    """Return what was asked for with them."""
    return ClientRequest(
        url=parsed.url,
        channels=tuple(parsed.channel),
        namespace=parsed.namespace,
        dialect=parsed.dialect,
        token_env=parsed.token_env,
    )
