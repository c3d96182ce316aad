"""A real browser, for tests of the page: it complains about whatever the page's console complains about."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Page

SOON: Final = 30_000.0
"""Milliseconds after which a wait in the browser is given up; none should come near it."""

_NOTING: Final = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
_CHROMIUM: Final = shutil.which("chromium")


def needed() -> None:
    """Skip a test where there is no browser; in CI there has to be one."""
    lacks = [
        *([] if find_spec("playwright") else ["the package playwright"]),
        *([] if _CHROMIUM else ["a browser named chromium"]),
    ]
    if not lacks:
        return
    reason = f"it needs {' and '.join(lacks)}"
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(reason)
    pytest.skip(reason)


@asynccontextmanager
async def browsing(url: str, *, disturbed: bool = False, **context: Any) -> AsyncIterator["Page"]:
    """Open a page, wait until it shows something, and check at the end that nothing went wrong in it.

    Args:
        url: Of the page.
        disturbed: Whether requests are made to fail, which the browser notes in the console.
        context: Of the browser: the size of the window, the colour scheme, ...
    """
    from playwright.async_api import async_playwright  # noqa: PLC0415 - it may not be there

    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        try:
            window = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
            window.set_default_timeout(SOON)
            await window.add_init_script(_NOTING)
            page = await window.new_page()
            page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
            await page.goto(url)
            await page.wait_for_selector("#diagram svg .current")
            yield page
            complaints += await page.evaluate("window.violations")
        finally:
            await browser.close()
    expected = "Failed to load resource:"
    left = [said for said in complaints if not (disturbed and expected in said)]
    assert not left, left
