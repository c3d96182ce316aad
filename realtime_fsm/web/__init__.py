"""A client for people and for balancers: its status page and its health, over HTTP.

::

    app.add_subapp("/realtime/", status_application(realtime, token=TOKEN))    in an application of yours

    async with serve_status_page(realtime, port=9102) as page:                 or on a port of its own
        print(page.url)
"""

from typing import TYPE_CHECKING, Final

from realtime_fsm import lazily

if TYPE_CHECKING:
    from realtime_fsm.web.application import StatusPage, serve_status_page, status_application
    from realtime_fsm.web.health import health_application, serve_health

_HOME: Final = {
    "StatusPage": "application",
    "health_application": "health",
    "serve_health": "health",
    "serve_status_page": "application",
    "status_application": "application",
}

__all__ = [
    "StatusPage",
    "health_application",
    "serve_health",
    "serve_status_page",
    "status_application",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _HOME)
