"""Alerts over real HTTP: signed, tried again where that helps, bounded, and without a secret anywhere."""

import asyncio
import base64
import hashlib
import json
import socket as sockets
import time
from collections.abc import Callable
from typing import Any

import canary
import pytest
from aiohttp import web
from hostile_server import Server, http, run, tcp

from realtime_fsm import ConfigurationError, RealtimeConfig, RealtimeService
from realtime_fsm.export.webhook import Signature, WebhookLimits, WebhookSink
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ProtocolError,
    RealtimeError,
    RedirectRefusedError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from realtime_fsm.machine.table import Severity
from realtime_fsm.monitoring.alert_engine import Alert, AlertState
from realtime_fsm.monitoring.alert_rules import AlertRule
from realtime_fsm.monitoring.alerting import CLOSED, Alerts, CallbackSink

SECRET = canary.token("that-signs-webhooks")
PATH = f"/services/{canary.token('in-the-path')}"
SOON = 20.0
"""Seconds within which a busy machine does what takes no time; what must not be waited for takes longer."""

QUICK = WebhookLimits(backoff_base=0.01, backoff_maximum=0.02, request_timeout=SOON, give_up_after=2 * SOON)
ALERT = Alert(
    incident="test-latency-1",
    rule="latency",
    state=AlertState.FIRED,
    severity=Severity.WARNING,
    sentence="Trop lent: 2 s, „langsam“.",
    remedy="Look.",
    value=2.0,
    threshold=1.0,
    began_at=1_700_000_000.0,
    at=1_700_000_060.0,
)


class Receiver:
    """Answers with what it is told, one after the other, and then with 204; keeps every request.

    Args:
        answers: Status codes, or whole answers.
    """

    def __init__(self, *answers: int | tuple[int, dict[str, str]]) -> None:
        self._answers = list(answers)
        self.requests: list[tuple[dict[str, str], bytes, float, str]] = []

    async def __call__(self, request: web.Request) -> web.Response:
        """Answer a request."""
        body = await request.read()
        self.requests.append((dict(request.headers), body, time.monotonic(), request.path))
        answer = self._answers.pop(0) if self._answers else 204
        status, headers = (answer, {}) if isinstance(answer, int) else answer
        return web.Response(status=status, headers=headers, text="" if status == 204 else "x" * 100)

    def header(self, name: str) -> list[str]:
        """Return one header of every request."""
        return [{key.lower(): value for key, value in heads.items()}[name] for heads, *_ in self.requests]


def signed_by_hand(message: bytes, key: bytes) -> str:
    """Return the signature as RFC 2104 defines it, without the module ``hmac``."""
    assert len(key) <= 64
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    return base64.b64encode(hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()).decode()


def check(receiver: Receiver, key: bytes) -> None:
    """Verify every request as a receiver should: by its id, its timestamp and its raw body."""
    assert receiver.requests
    times = zip(receiver.header("webhook-id"), receiver.header("webhook-timestamp"), strict=True)
    for (message_id, timestamp), signature, (_, body, *_rest) in zip(
        times, receiver.header("webhook-signature"), receiver.requests, strict=True
    ):
        assert abs(time.time() - int(timestamp)) < 60
        signed = f"{message_id}.{timestamp}.".encode() + body
        assert signature == "v1," + signed_by_hand(signed, key)


def sink_for(server: Server, secret: str | bytes = SECRET, limits: WebhookLimits = QUICK) -> WebhookSink:
    """Return a sink for a server."""
    return WebhookSink(server.url + PATH, secret=secret, limits=limits)


async def failure(sink: WebhookSink, server: Server | None = None) -> RealtimeError:
    """Return the error with which sending fails, having checked that it tells no secret."""
    with pytest.raises(RealtimeError) as raised:
        await sink.send(ALERT)
    assert canary.found_in_error(raised.value) == []
    assert server is None or server.client_sockets() == []
    return raised.value


RAW = bytes(range(40))


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        (SECRET, SECRET.encode()),
        (RAW, RAW),
        ("whsec_" + base64.b64encode(RAW).decode(), RAW),
    ],
    ids=["text", "bytes", "whsec"],
)
def test_alert_arrives_signed(secret: str | bytes, key: bytes) -> None:
    """The receiver gets the alert as JSON, with an id and a signature that can be verified."""
    receiver = Receiver()

    async def main(server: Server) -> None:
        await sink_for(server, secret).send(ALERT)
        assert server.client_sockets() == []

    with http(receiver) as server:
        run(main(server))
    check(receiver, key)
    ((_, body, _, path),) = receiver.requests
    assert json.loads(body) == ALERT.to_json()
    assert path == PATH
    assert receiver.header("content-type") == ["application/json"]
    assert receiver.header("webhook-id") == ["test-latency-1-fired"]


def test_signature_is_the_one_of_standard_webhooks() -> None:
    """The example by which the libraries of Standard Webhooks are tested is signed as they expect."""
    key = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = Signature(f"whsec_{key}").headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert key not in repr(vars(Signature(f"whsec_{key}")))


@pytest.mark.parametrize("status", [500, 503, 408, 429])
def test_failure_that_may_pass_is_tried_again_under_the_same_id(status: int) -> None:
    """5xx, 408 and 429 are tried again, with the same id and body, and a signature of the new time."""
    receiver = Receiver(status, status)

    async def main(server: Server) -> None:
        sink = sink_for(server)
        await sink.send(ALERT)
        assert sink.requests == 3

    with http(receiver) as server:
        run(main(server))
    check(receiver, SECRET.encode())
    assert len(set(receiver.header("webhook-id"))) == 1
    assert len({body for _, body, *_ in receiver.requests}) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ProtocolError),
        (401, AuthenticationError),
        (404, ProtocolError),
        (410, ProtocolError),
        (302, RedirectRefusedError),
    ],
)
def test_refusal_is_not_tried_again(status: int, kind: type[RealtimeError]) -> None:
    """What the receiver refuses is sent once; a redirect is a refusal, and is not followed."""
    receiver = Receiver((status, {"Location": "/elsewhere"}))

    async def main(server: Server) -> None:
        error = await failure(sink_for(server), server)
        assert type(error) is kind
        assert f"HTTP {status}" in str(error)

    with http(receiver) as server:
        run(main(server))
    assert len(receiver.requests) == 1


def test_tries_are_bounded() -> None:
    """A receiver that never can is given up after `max_attempts`, with its last word as the error."""
    receiver = Receiver(*[500] * 50)

    async def main(server: Server) -> None:
        limits = WebhookLimits(backoff_base=0.01, backoff_maximum=0.02, max_attempts=4)
        error = await failure(sink_for(server, limits=limits), server)
        assert isinstance(error, ServerUnavailableError)
        assert error.status == 500

    with http(receiver) as server:
        run(main(server))
    assert len(receiver.requests) == 4


def test_time_for_one_alert_is_bounded() -> None:
    """No try begins that would end a pause after `give_up_after`."""
    receiver = Receiver(*[500] * 50)

    async def main(server: Server) -> None:
        limits = WebhookLimits(backoff_base=60.0, backoff_maximum=60.0, give_up_after=0.2)
        began = time.monotonic()
        await failure(sink_for(server, limits=limits), server)
        assert time.monotonic() - began < SOON

    with http(receiver) as server:
        run(main(server))
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(("asked", "most", "waited"), [("1", 60.0, (1.0, SOON)), ("99999", 0.4, (0.4, SOON))])
def test_retry_after_is_honoured_and_bounded(asked: str, most: float, waited: tuple[float, float]) -> None:
    """The receiver's `Retry-After` makes the pause longer, but never longer than `max_retry_after`."""
    receiver = Receiver((503, {"Retry-After": asked}))

    async def main(server: Server) -> None:
        limits = WebhookLimits(backoff_base=0.01, backoff_maximum=0.02, max_retry_after=most)
        await sink_for(server, limits=limits).send(ALERT)

    with http(receiver) as server:
        run(main(server))
    first, second = (when for _, _, when, _ in receiver.requests)
    assert waited[0] - 0.05 <= second - first <= waited[1]


def test_receiver_that_does_not_answer_is_given_up() -> None:
    """A receiver that hangs costs `request_timeout` for each try, and leaves no socket behind."""

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async def main(server: Server) -> None:
        limits = WebhookLimits(request_timeout=0.2, max_attempts=2, backoff_base=0.01, backoff_maximum=0.02)
        began = time.monotonic()
        error = await failure(sink_for(server, limits=limits), server)
        assert isinstance(error, ServerUnreachableError)
        assert 0.35 < time.monotonic() - began < SOON

    with http(hang) as server:
        run(main(server))


def test_answer_that_drips_is_not_waited_for() -> None:
    """Only the head of the answer is read: a body that never ends holds nothing up."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b"x")
            await asyncio.sleep(0.05)
        return response

    async def main(server: Server) -> None:
        began = time.monotonic()
        await sink_for(server).send(ALERT)
        assert time.monotonic() - began < SOON
        assert server.client_sockets() == []

    with http(drip) as server:
        run(main(server))


def test_receiver_that_is_not_there_or_talks_nonsense_tells_no_secret() -> None:
    """A refused connection, one that is cut, and an answer that is not HTTP fail with a clean error."""

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"this is not HTTP at all\r\n\r\n")
        writer.close()

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.transport.abort()

    async def main(server: Server) -> None:
        assert isinstance(await failure(sink_for(server), server), ServerUnreachableError)

    for behaviour in (nonsense, cut):
        with tcp(behaviour) as server:
            run(main(server))
    with sockets.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}{PATH}"
        sink = WebhookSink(url, secret=SECRET, limits=QUICK)

        async def refused() -> None:
            assert isinstance(await failure(sink), ServerUnreachableError)

        run(refused())


def waiting_rule() -> AlertRule:
    """Return a rule that fires as soon as a message waits."""
    return AlertRule(
        name="waiting",
        measure="outbox_age",  # type: ignore[arg-type]
        threshold=0.05,
        clear_threshold=0.0,
        sentence="A message waits.",
        remedy="Connect.",
    )


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so; bounded."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - it is another loop's, that knows no event of ours
            await asyncio.sleep(0.01)


def test_fired_and_resolved_alerts_arrive_in_turn(caplog: pytest.LogCaptureFixture) -> None:
    """A real client's alert and its resolution reach the receiver, signed, and nothing is left."""
    receiver = Receiver(500)

    async def main(server: Server) -> None:
        realtime = RealtimeService(RealtimeConfig(server_url="http://127.0.0.1:9"))
        sink = sink_for(server)
        async with Alerts(realtime, [waiting_rule()], [sink], interval=0.05, source="it") as alerts:
            await realtime.emit("n", 1)
            await until(lambda: len(receiver.requests) == 2)
            assert len(alerts.active) == 1
            realtime.outbox.clear()
            await until(lambda: len(receiver.requests) == 3)
        assert alerts.counters.sent == 2
        assert canary.found_in(repr(sink), repr(vars(alerts)), json.dumps(alerts.to_json())) == []
        await realtime.disconnect(drain=False)

    with http(receiver) as server:
        run(main(server))
    check(receiver, SECRET.encode())
    assert receiver.header("webhook-id") == [
        "it-waiting-1-fired",
        "it-waiting-1-fired",
        "it-waiting-1-resolved",
    ]
    assert canary.found_in(caplog.text) == []


def test_stop_does_not_wait_for_a_receiver_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """The stop is bounded while a request is under way; what was not sent is counted and logged."""

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async def main(server: Server) -> None:
        realtime = RealtimeService(RealtimeConfig(server_url="http://127.0.0.1:9"))
        told: list[Alert] = []
        sinks = [sink_for(server, limits=WebhookLimits(request_timeout=60.0)), CallbackSink(told.append)]
        alerts = Alerts(realtime, [waiting_rule()], sinks, interval=0.05, close_timeout=0.3)
        alerts.start()
        await realtime.emit("n", 1)
        await until(lambda: told)
        began = time.monotonic()
        await alerts.stop()
        assert time.monotonic() - began < SOON
        assert (alerts.counters.sent, alerts.counters.dropped) == (1, {CLOSED: 1})
        assert server.client_sockets() == []
        await realtime.disconnect(drain=False)

    with http(hang) as server:
        run(main(server))
    assert CLOSED in caplog.text
    assert canary.found_in(caplog.text) == []


def test_refused_alert_is_counted_and_logged_without_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """What a receiver refuses is a failure of the sink, in the log with its reason and remedy."""
    receiver = Receiver(400)

    async def main(server: Server) -> None:
        realtime = RealtimeService(RealtimeConfig(server_url="http://127.0.0.1:9"))
        async with Alerts(realtime, [waiting_rule()], [sink_for(server)], interval=0.05) as alerts:
            await realtime.emit("n", 1)
            await until(lambda: alerts.counters.failed == 1)
        await realtime.disconnect(drain=False)

    with http(receiver) as server:
        run(main(server))
    assert "refuses the alert (HTTP 400). Check the webhook's address and secret." in caplog.text
    assert canary.found_in(caplog.text) == []


def test_webhook_that_makes_no_sense_is_refused_with_everything() -> None:
    """All problems are reported at once, and neither the address nor the secret is shown."""
    with pytest.raises(ConfigurationError) as raised:
        WebhookSink(
            f"ftp://user:{SECRET}@host{PATH}",
            secret="whsec_" + SECRET,
            limits=WebhookLimits(request_timeout=0.0, max_attempts=1.5),  # type: ignore[arg-type]
        )
    assert len(raised.value.problems) == 4
    assert canary.found_in_error(raised.value) == []
    for url, secret, said in [
        ("http://a:b@host/", SECRET, "credentials"),
        ("http://host:99999/", SECRET, "must begin with"),
        ("http://host/", "short", "at least 24 bytes"),
        ("http://host/", "whsec_" + base64.b64encode(b"short").decode(), "at least 24 bytes"),
    ]:
        with pytest.raises(ConfigurationError, match=said):
            WebhookSink(url, secret=secret)
    with pytest.raises(ConfigurationError, match="backoff_base"):
        WebhookSink("http://h/", secret=SECRET, limits=WebhookLimits(backoff_base=9.0, backoff_maximum=1.0))
