"""The pictures of the report in the docs: `python docs/screenshots.py REPORT.html docs/pictures`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from analysis.report.browser import chromium

PICTURES = {
    "report_light": ("light", 1180, 1260, "#findings"),
    "report_dark": ("dark", 1180, 1000, "#answers-title"),
    "report_phone": ("light", 390, 844, "#findings"),
}
"""Name -> colours, width and height of the window in pixels, and what stands at its top."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Open the page once for each picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name, (colours, width, height, top) in PICTURES.items():
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme="dark" if colours == "dark" else "light",
                reduced_motion="reduce",
            )
            page.goto(given.report.resolve().as_uri())
            page.locator("#accuracy").scroll_into_view_if_needed()
            page.wait_for_selector("#chart[data-drawn]")
            page.locator(top).evaluate("element => element.scrollIntoView()")
            if top == "#answers-title":
                page.select_option("[name=answers-filter]", index=1)
                page.locator("button.question").nth(1).click()
            page.evaluate("document.activeElement.blur()")
            page.screenshot(path=given.folder / f"{name}.png")


if __name__ == "__main__":
    main()
