"""Chromium, in which tests, the benchmark and the pictures of the docs look at the page. Needs the extra `test`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium: that of the machine, or playwright's own.

    Raises:
        OSError: There is none, or it does not start.
    """
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as started:
        command = next(filter(None, map(shutil.which, COMMANDS)), None)
        # a browser in a sandbox does not run as root
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        try:
            browser = started.chromium.launch(executable_path=command, args=options)
        except Error as error:
            reason = error.message.splitlines()[0]
            raise OSError(f"no Chromium ({reason}): install one, or run `playwright install chromium`") from None
        try:
            yield browser
        finally:
            browser.close()
