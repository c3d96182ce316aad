"""The server that ``PollerContract`` wants, on a real socket."""

import asyncio
from http import HTTPStatus
from typing import Final, Self

from aiohttp import web

from realtime_fsm.testing.contracts.poller_contract import RETRY_AFTER

_HOST: Final = "127.0.0.1"
_SAME_TAG: Final = '"same"'
_SHUTDOWN_TIMEOUT: Final = 0.1


class PollerServer:
    """Serves the paths of ``PollerContract`` at a free port of 127.0.0.1, on the running loop.

    ::

        async with PollerServer() as server:
            ...  # fetch server.url + "/count"

    Attributes:
        url: Where it listens.
    """

    def __init__(self) -> None:
        self.url = ""
        self._count = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/count", self._counted)
        app.router.add_get("/same", self._same)
        app.router.add_post("/echo", self._echo)
        app.router.add_get("/garbled", self._garbled)
        app.router.add_get("/silent", self._silent)
        app.router.add_get("/{status}", self._refuse)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT, handler_cancellation=True
        )
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, _HOST, 0).start()
        self.url = f"http://{_HOST}:{runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Stop it; requests that wait are cancelled."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _counted(self, _: web.Request) -> web.Response:
        self._count += 1
        return web.json_response(self._count)

    async def _same(self, request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == _SAME_TAG:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers={"ETag": _SAME_TAG})
        return web.json_response(["same", 1], headers={"ETag": _SAME_TAG})

    async def _echo(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        key = request.headers.get("Idempotency-Key")
        shown = token if scheme == "Bearer" else None
        return web.json_response({"body": await request.json(), "token": shown, "key": key})

    async def _garbled(self, _: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="application/json")

    async def _silent(self, _: web.Request) -> web.Response:
        await asyncio.Event().wait()  # cancelled when the client goes away
        return web.Response()

    async def _refuse(self, request: web.Request) -> web.Response:
        match request.match_info["status"]:
            case "unauthorized":
                return web.Response(status=HTTPStatus.UNAUTHORIZED)
            case "forbidden":
                return web.Response(status=HTTPStatus.FORBIDDEN)
            case "moved":
                return web.Response(status=HTTPStatus.FOUND, headers={"Location": "http://127.0.0.2:9/"})
            case "busy":
                headers = {"Retry-After": f"{RETRY_AFTER:.0f}"}
                return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers)
        return web.Response(status=HTTPStatus.NOT_FOUND)
