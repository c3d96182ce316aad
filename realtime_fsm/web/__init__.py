"""The status page: what a client does, for people, and the few things that they may ask of it.

::

    app.add_subapp("/realtime/", status_application(realtime, token=TOKEN))    in an application of yours

    async with serve_status_page(realtime, port=9102) as page:                 or on a port of its own
        print(page.url)
"""

from realtime_fsm.web.application import StatusPage, serve_status_page, status_application

__all__ = ["StatusPage", "serve_status_page", "status_application"]
