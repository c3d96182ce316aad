"""The checks below HTTP: the configuration, the name, TCP and TLS."""

import asyncio
import socket
import ssl
import threading
import time
from typing import Any, Final

from aiohttp.abc import ResolveResult

from realtime_fsm.adapters.library_check import check_libraries
from realtime_fsm.doctor.examination import Examination, Target
from realtime_fsm.doctor.finding import Fault, Finding, failed, ok, skipped, warning
from realtime_fsm.machine.config import shown_address

CONFIGURATION: Final = "configuration"
NAME: Final = "name"
TCP: Final = "tcp"
TLS: Final = "tls"

_MOST_SHOWN: Final = 3
_DAY: Final = 24 * 3600.0
_EXPIRES_SOON: Final = 14 * _DAY
_DNS_SILENT: Final = "Check the resolver of this machine (/etc/resolv.conf), and that it can be reached."
_TRUST: Final = (
    "Use a certificate of a known authority, or have this machine trust yours: SSL_CERT_FILE=ca.pem names it."
)

# What OpenSSL's `X509_V_ERR_...` are numbered.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_SELF_SIGNED: Final = frozenset({18, 19})
_UNKNOWN_ISSUER: Final = frozenset({2, 20, 21})
_OTHER_NAME: Final = frozenset({62, 64})


async def check_configuration(examination: Examination) -> Finding:
    """Look at the configuration, which is valid, and at the libraries."""
    target = examination.target
    check_libraries()
    config = target.config
    where = shown_address(config.server_url)
    path = config.socketio_path.strip("/")
    if not target.is_secure and target.token is not None and not target.is_local:
        return warning(
            CONFIGURATION,
            f"{where} is not encrypted: everybody on the way can read the token.",
            "Use https://.",
        )
    if target.parts.path.strip("/"):
        return warning(
            CONFIGURATION,
            f"The path of {where} is not used: Socket.IO is asked for at /{path}/.",
            "Give the path of Socket.IO as `socketio_path` (--path), and leave it out of the address.",
        )
    return ok(
        CONFIGURATION,
        f"{where}, path /{path}/, namespace {config.namespace}, dialect {config.dialect.name}.",
    )


async def check_name(examination: Examination) -> Finding:
    """Find the addresses of the host."""
    target = examination.target
    host = target.host
    try:
        async with asyncio.timeout(target.timeout):
            examination.addresses = await _resolved(host, target.port)
    except TimeoutError:
        said, remedy = f"No answer for the name {host!r} within {target.timeout:g} s.", _DNS_SILENT
    except OSError as error:
        said = f"The name {host!r} cannot be resolved: {error.strerror or error}."
        remedy = f"Check how the host is written, and look it up by other means: getent hosts {host}"
    except UnicodeError:
        said, remedy = f"{host!r} cannot be the name of a host.", "Check how the host is written."
    else:
        found = list(dict.fromkeys(address["host"] for address in examination.addresses))
        shown = ", ".join(found[:_MOST_SHOWN]) + (" …" if len(found) > _MOST_SHOWN else "")
        return ok(NAME, f"{host} is {shown}." if found != [host] else f"{host} is an address.", found=found)
    return failed(NAME, Fault.UNREACHABLE, said, remedy)


async def _resolved(host: str, port: int) -> list[ResolveResult]:
    """Resolve a name in a thread that nobody has to wait for: the system may take minutes."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def settle(result: list[Any] | BaseException) -> None:
        if answer.done():
            return
        if isinstance(result, BaseException):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def ask() -> None:
        try:
            result: list[Any] | BaseException = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            result = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=ask, name="realtime_fsm doctor resolver", daemon=True).start()
    return [
        ResolveResult(
            hostname=host, host=where[0], port=port, family=family, proto=proto, flags=socket.AI_NUMERICHOST
        )
        for family, _, proto, _, where in await answer
    ]


async def check_tcp(examination: Examination) -> Finding:
    """Connect to the addresses, one after the other, until one answers."""
    target = examination.target
    began = time.monotonic()
    refusals: list[tuple[str, OSError]] = []
    each = target.timeout / len(examination.addresses)
    for address in tuple(examination.addresses):
        try:
            async with asyncio.timeout(each):
                _, writer = await asyncio.open_connection(address["host"], target.port)
        except OSError as error:  # TimeoutError is one
            refusals.append((address["host"], error))
            continue
        writer.transport.abort()
        took = (time.monotonic() - began) * 1000
        examination.addresses.remove(address)
        examination.addresses.insert(0, address)  # the one that answers is used from now on
        if any(isinstance(error, TimeoutError) for _, error in refusals):
            dead = ", ".join(host for host, _ in refusals)
            return warning(
                TCP,
                f"{address['host']} answers, but not {dead}: every connection may begin with a delay.",
                "Take the dead addresses out of the name's records, or make the server listen there.",
            )
        return ok(
            TCP, f"{target.authority} accepts the connection ({took:.0f} ms).", milliseconds=round(took, 1)
        )
    return _not_connected(target, [error for _, error in refusals])


def _not_connected(target: Target, errors: list[OSError]) -> Finding:
    """Say why nobody answered; a refusal tells more than silence."""
    refused = any(isinstance(error, ConnectionRefusedError) for error in errors)
    silent = all(isinstance(error, TimeoutError) for error in errors)
    if refused:
        said = f"{target.authority} refuses the connection: nothing listens there."
        remedy = "Start the server, or check the port; in a container, that the port is published."
    elif silent:
        said = f"{target.authority} does not answer within {target.timeout:g} s."
        remedy = "A firewall drops the packets, or the host is down: check both."
    else:
        said = f"{target.authority} cannot be reached: {errors[-1].strerror or errors[-1]}."
        remedy = "Check the network of this machine, its routes and its VPN."
    return failed(TCP, Fault.UNREACHABLE, said, remedy)


async def check_tls(examination: Examination) -> Finding:
    """Shake hands, and look at the certificate."""
    target = examination.target
    if not target.is_secure:
        return skipped(TLS, "The address begins with http://: nothing is encrypted.")
    try:
        version, certificate = await shake_hands(examination, target.trusted())
    except ssl.SSLCertVerificationError as error:
        return _certificate_refused(target, error)
    except TimeoutError:
        said = (
            f"{target.authority} accepts the connection, and does not begin with TLS in {target.timeout:g} s."
        )
        remedy = "Check that the port is the one for TLS, and that the proxy in front of the server works."
    except OSError as error:
        said, remedy = _no_tls(target, error)
    else:
        return _certificate_seen(version, certificate)
    return failed(TLS, Fault.UNREACHABLE, said, remedy)


async def shake_hands(examination: Examination, context: ssl.SSLContext) -> tuple[str, dict[str, Any]]:
    """Open a TLS connection and close it; return the version of TLS and the certificate.

    Raises:
        OSError: If there is none. ``ssl.SSLError`` and ``TimeoutError`` are such.
    """
    target = examination.target
    async with asyncio.timeout(target.timeout):
        _, writer = await asyncio.open_connection(
            examination.addresses[0]["host"], target.port, ssl=context, server_hostname=target.host
        )
    try:
        session = writer.get_extra_info("ssl_object")
        return session.version() or "TLS", session.getpeercert() or {}
    finally:
        writer.transport.abort()


async def speaks_tls(examination: Examination) -> bool:
    """Tell whether TLS is spoken where none was asked for; whose the certificate is does not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent over it
    try:
        await shake_hands(examination, context)
    except OSError:
        return False
    return True


def _no_tls(target: Target, error: OSError) -> tuple[str, str]:
    reason = getattr(error, "reason", None) or ""
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}:
        return (
            f"{target.authority} answers, but does not speak TLS.",
            "Use http:// here, or the port at which the server or its proxy speaks TLS.",
        )
    if not isinstance(error, ssl.SSLError):
        return (
            f"{target.authority} cut the connection off during the TLS handshake.",
            "Check that the port is the one for TLS, and the server's or the proxy's log.",
        )
    words = reason.replace("_", " ").lower() or "the handshake failed"
    return (
        f"{target.authority} and this client agree on no TLS connection: {words}.",
        "Make the server offer TLS 1.2 or 1.3 and serve this name; its log says more.",
    )


def _certificate_refused(target: Target, error: ssl.SSLCertVerificationError) -> Finding:
    code, host = error.verify_code, target.host
    if code == _EXPIRED:
        said, remedy = f"The certificate of {host} has expired.", "Renew it; check this machine's clock too."
    elif code == _NOT_YET_VALID:
        said = f"The certificate of {host} is not valid yet."
        remedy = "Check the clock of this machine, and from when the certificate is valid."
    elif code in _OTHER_NAME:
        said = f"The certificate is for another name than {host}: {error.verify_message}"
        remedy = "Use a name that the certificate holds, or get one that holds this name."
    elif code in _SELF_SIGNED:
        said = f"The certificate of {host}, or of its issuer, is self-signed: nobody vouches for it."
        remedy = _TRUST
    elif code in _UNKNOWN_ISSUER:
        said = f"The certificate of {host} is from an issuer that this machine does not know."
        remedy = f"Make the server send the intermediate certificates as well. {_TRUST}"
    else:
        said = f"The certificate of {host} is refused: {error.verify_message}."
        remedy = "Mend the certificate of the server or of the proxy in front of it."
    return failed(TLS, Fault.UNREACHABLE, said, remedy, verify_code=code)


def _certificate_seen(version: str, certificate: dict[str, Any]) -> Finding:
    until = certificate.get("notAfter")
    if not isinstance(until, str):
        return ok(TLS, f"{version}.", version=version)
    left = ssl.cert_time_to_seconds(until) - time.time()
    days = int(left // _DAY)
    details: dict[str, Any] = {"version": version, "expires": until, "days_left": days}
    if left < _EXPIRES_SOON:
        return warning(
            TLS,
            f"{version}; the certificate expires in {days} days ({until}).",
            "Renew it now, and find out why that does not happen by itself.",
            **details,
        )
    return ok(TLS, f"{version}; the certificate is valid for {days} more days.", **details)
