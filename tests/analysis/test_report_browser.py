"""The page of a sweep in a browser: what it shows, what it answers to mouse and keyboard, and what it must never do.

Chromium is that of the machine, or playwright's own; `make test` gets one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pages
import pytest
import sweeps
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Route, expect

from analysis import report
from analysis.collect import collect
from analysis.report.browser import chromium

MOST_MEGABYTES = 15


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with ExitStack() as stack:
        try:
            started = stack.enter_context(chromium())
        except OSError as error:
            pytest.skip(str(error))
        yield started


class Tab:
    """A page that is opened as a reader would, and all that it says or asks for."""

    def __init__(self, context: BrowserContext) -> None:
        self.page = context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        context.route("**/*", self._ask)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.said.append(f"{message.type}: {message.text}")

    def _ask(self, route: Route) -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            self.asked.append(route.request.url)
            route.abort()

    def open(self, path: Path) -> Page:
        self.page.goto(path.as_uri())
        self.page.locator("#accuracy").scroll_into_view_if_needed()
        self.page.wait_for_selector("#chart[data-drawn]")
        return self.page


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A tab that fails the test if the page complained, or asked any server for anything."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, color_scheme="light")
    opened = Tab(context)
    yield opened
    context.close()
    assert not opened.said
    assert not opened.asked


def lines(page: Page, chart: str = "chart") -> int:
    """Lines that are drawn in a chart."""
    return page.locator(f"#{chart} .scatterlayer path.js-line").count()


def rings(page: Page) -> int:
    """Runs that are marked as those of a front."""
    return int(
        page.evaluate(
            "chart.data.filter((each) => each.marker?.symbol === 'circle-open')"
            ".reduce((sum, each) => sum + each.x.length, 0)"
        )
    )


def column(page: Page, name: str) -> list[str]:
    """The cells of a column of the table of runs that are shown."""
    keys = [head.get_attribute("data-key") for head in page.locator("#runs-table th[data-key]").all()]
    return page.locator(f"#runs-table tbody tr > :nth-child({keys.index(name) + 1})").all_inner_texts()


def head(page: Page, name: str) -> Locator:
    return page.locator(f'#runs-table th[data-key="{name}"]')


def questions(page: Page) -> set[str]:
    """The ids of the questions that are shown."""
    return {each.get_attribute("data-question") or "" for each in page.locator("button.question").all()}


def contrast(one: str, other: str) -> float:
    """Of two colours as a browser tells them (WCAG 2)."""

    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def test_charts_are_drawn_and_follow_their_controls(tab: Tab, evil: Path) -> None:
    page = tab.open(evil)
    # two criteria, four losses each
    assert lines(page) == 8
    assert page.locator("#chart .xtitle").first.inner_html() == "Share of MLP neurons removed (%)"
    assert "95 % intervals" in page.inner_text("#chart-caption")
    assert "moved sideways" in page.inner_text("#chart-caption")
    buttons = page.locator("#chart .modebar-btn").evaluate_all("all => all.map((each) => each.dataset.title)")
    assert buttons and set(buttons) == {
        "Download plot as a PNG",
        "Zoom",
        "Pan",
        "Zoom in",
        "Zoom out",
        "Reset axes",
    }
    page.select_option("[name=chart-axis]", "0/parameters")
    assert page.locator("#chart .xtitle").first.inner_html() == "Parameters"
    # the staircase of the front in each panel
    assert lines(page) == 10
    assert "no other run" in page.inner_text("#chart-caption")
    # all that stands at one size stands at one place
    assert "moved sideways" not in page.inner_text("#chart-caption")
    places = page.evaluate(
        "chart.data.filter((each) => each.error_y).map((each) => each.x[each.x.length - 1] / 520010)"
    )
    assert len(places) == 8 and places == pytest.approx([1.0] * 8, rel=1e-6)
    # rings are those of lines that are seen; without KL what KL beats has no staircase
    page.locator("#chart-legend button", has_text="KL").click()
    assert lines(page) == 6 and 0 < rings(page) < 9
    page.locator("#chart-legend button", has_text="KL").click()
    page.uncheck("[name=chart-front]")
    assert lines(page) == 8 and rings(page) == 0
    page.select_option("[name=chart-criterion]", "L2")
    assert lines(page) == 4
    page.select_option("[name=chart-metric]", "nll")
    assert "Negative log-likelihood" in page.locator("#chart .ytitle").first.inner_html()
    assert "criterion L2" in page.inner_text("#chart-caption")
    page.select_option("[name=chart-axis]", "0/milliseconds_per_token")
    # no line and no front over clock time, and no m for thousandths beside ms
    assert lines(page) == 0 and page.locator("[name=chart-front]").count() == 0
    ticks = page.locator("#chart .xtick text").all_text_contents()
    assert ticks and all(re.fullmatch(r"[\d.]+", each) for each in ticks)
    assert "by the clock" in page.locator("#chart .xtitle").first.inner_html()
    assert "do not compare" in page.inner_text("#chart-caption")
    # the list too says what was measured by a clock; and what is counted asks no questions
    assert "by the clock" in page.inner_text("[name=chart-metric] option[value=tokens_per_second]")
    page.select_option("[name=chart-metric]", "parameters")
    assert "parameters, criterion L2." in page.inner_text("#chart-caption")
    assert "questions" not in page.inner_text("#chart-caption")
    page.click("#chart-numbers summary")
    expect(page.locator("#chart-numbers tbody tr")).to_have_count(8)
    # by keyboard: CE off and on again
    page.select_option("[name=chart-axis]", "0/block")
    button = page.locator("#chart-legend button", has_text="CE")
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false" and lines(page) == 3
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true" and lines(page) == 4


def test_training_curves_are_drawn_when_they_are_looked_at(tab: Tab, evil: Path) -> None:
    page = tab.open(evil)
    assert page.get_attribute("#training-chart", "data-drawn") is None
    page.locator("#training").scroll_into_view_if_needed()
    page.wait_for_selector("#training-chart[data-drawn]")
    # three losses x three seeds of one criterion
    assert lines(page, "training-chart") == 9
    page.select_option("[name=training-criterion]", "")
    assert lines(page, "training-chart") == 18
    page.select_option("[name=training-metric]", "lr")
    assert "Learning rate" in page.locator("#training-chart .ytitle").first.inner_html()
    drawn = {
        page.locator(f"#{chart} path.js-line").nth(place).evaluate("line => line.style.stroke")
        for chart, place in (("chart", 1), ("training-chart", 0))
    }
    assert len(drawn) == 1, "CE has one colour"


def test_runs_are_sorted_filtered_and_paged(tab: Tab, evil: Path) -> None:
    page = tab.open(evil)
    assert page.inner_text("#runs-count") == "50 of 50 runs, by run"
    assert head(page, "id").get_attribute("aria-sort") == "ascending"
    assert page.locator("#runs-table tbody tr").count() == 25
    page.click("#runs-pages button:last-of-type")
    assert "26 to 50 of 50, page 2 of 2" in page.inner_text("#runs-pages")
    # there is no next page, so the keyboard goes on with the other button
    expect(page.locator("#runs-pages button", has_text="Previous")).to_be_focused()
    head(page, "accuracy").locator("button").click()
    assert head(page, "accuracy").get_attribute("aria-sort") == "ascending"
    assert "page 1 of 2" in page.inner_text("#runs-pages")
    values = [float(text) for text in column(page, "accuracy")]
    assert values == sorted(values) and values[0] < values[-1]
    # by keyboard: the same button keeps the focus, and turns the order
    page.keyboard.press("Enter")
    assert head(page, "accuracy").get_attribute("aria-sort") == "descending"
    assert page.inner_text("#runs-count") == "50 of 50 runs, by accuracy (%), falling"
    values = [float(text) for text in column(page, "accuracy")]
    assert values == sorted(values, reverse=True)
    # runs without a number stand last in either order
    page.click("#runs-pages button:last-of-type")
    assert column(page, "accuracy")[-2:] == ["", ""]
    page.select_option("[name=runs-loss]", "KL")
    assert page.inner_text("#runs-count").startswith("13 of 50 runs")
    page.select_option("[name=runs-status]", "failed")
    assert page.inner_text("#runs-count").startswith("1 of 50 runs")
    page.select_option("[name=runs-status]", "")
    page.fill("[name=runs-text]", "random kl")
    expect(page.locator("#runs-count")).to_contain_text("6 of 50 runs")
    assert set(column(page, "criterion")) == {"random"}


def test_a_run_leads_to_its_config(tab: Tab, evil: Path) -> None:
    page = tab.open(evil)
    page.select_option("[name=runs-status]", "failed")
    name = column(page, "id")[0]
    page.locator("#runs-table tbody a").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#config-pair")).to_be_focused()
    assert page.locator("#config-diff thead th").nth(1).inner_text() == name
    rows = page.locator("#config-diff tbody tr")
    assert rows.filter(has_text="sparsity").locator("td").first.inner_text() == "0.95"
    shown = rows.count()
    page.check("[name=config-only]")
    assert 0 < rows.count() < shown
    assert rows.count() == page.locator("#config-diff tr.differs").count()
    page.click("#config-common summary")
    assert pages.EVIL in page.inner_text("#config-common")


def test_filters_of_answers_select_the_right_questions(tab: Tab, evil: Path) -> None:
    page = tab.open(evil)
    assert page.locator("#answers-table thead th").all_inner_texts() == [
        "question",
        "dense",
        "pruned (3 seeds alike)",
        "CE (3 seeds alike)",
        "KL",
        f"{pages.EVIL} (3 seeds alike)",
    ]

    def by(name: str) -> list[int]:
        page.select_option("[name=answers-filter]", name)
        told = page.locator(f"[name=answers-filter] option[value='{name}']").inner_text()
        found = sorted(int(each[1:]) for each in questions(page))
        assert len(found) == 25 or f"({len(found)})" in told
        return found

    page.select_option("[name=answers-sparsity]", "80 %")
    # dense is right on all but the last of 40
    assert by("lost") == list(range(10, 35))
    assert "29 of 40 questions" in page.inner_text("#answers-count")
    assert by("back:CE") == list(range(10, 20))
    assert by("back:KL") == [*range(10, 15), *range(20, 30)]
    assert by("only:KL:CE") == list(range(20, 30))
    assert by("only:CE:KL") == list(range(15, 20))
    assert by("broken:CE") == [3] and by("broken:KL") == []
    # the example has as many seeds as there are
    assert "2/3: 2 of 3 seeds are right." in page.inner_text("#answers-count")
    assert "a tie counts as wrong" in page.inner_text("#answers-count")
    # KL answers question 20 with two of three seeds; seed 2 alone does not
    by("only:KL:CE")
    row = page.locator("#answers-table tbody tr", has=page.locator('[data-question="q00020"]'))
    assert row.locator("td").all_inner_texts() == ["right", "wrong", "wrong", "2/3", "wrong"]
    page.select_option("[name=answers-seed]", "2")
    assert by("only:KL:CE") == list(range(21, 30))
    page.select_option("[name=answers-seed]", "")
    by("all")
    page.fill("[name=answers-text]", "thing 31")
    expect(page.locator("button.question")).to_have_count(1)
    assert questions(page) == {"q00031"}
    # by keyboard: the choices, who gave them, and the right one
    page.locator("button.question").focus()
    page.keyboard.press("Enter")
    choices = page.locator(".choices tr")
    assert choices.count() == 5
    assert choices.filter(has_text="gold").inner_text().split("\t")[0] == "blue"
    assert "pruned · CE · KL 3/3 · " in choices.nth(2).inner_text()
    assert page.evaluate("document.activeElement.dataset.question") == "q00031"


def test_whatever_is_chosen_there_is_a_run_with_it(tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for sparsity, rate in ((0.3, 0.01), (0.8, 0.02)):
        for loss in ("none", "kl"):
            made = sweeps.record(loss=loss, sparsity=sparsity, lr=rate, questions=3)
            sweeps.save(made, tmp_path / "study", losses=None if loss == "none" else [2.0, 1.0])
    monkeypatch.setattr(report, "FIGURES", {})
    page = tab.open(report.write(collect([tmp_path / "study"]), tmp_path)[0])

    def chosen() -> tuple[str, str]:
        sparsity, variant = (page.locator(f"[name=answers-{name}]").input_value() for name in ("sparsity", "variant"))
        return sparsity, variant

    assert chosen() == ("80 %", "recovery.lr=0.02")
    page.select_option("[name=answers-sparsity]", "30 %")
    assert chosen() == ("30 %", "recovery.lr=0.01")
    page.select_option("[name=answers-variant]", "recovery.lr=0.02")
    assert chosen() == ("80 %", "recovery.lr=0.02")
    assert page.locator("#answers-table thead th").all_inner_texts() == ["question", "dense", "pruned", "KL"]
    assert "do not tell the texts" in page.inner_text("#answers-notes")


def test_what_a_verdict_rests_on_beside_its_test_stands_in_its_cell(
    tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loss, commit in (("kl", "aaa"), ("ce", "bbb")):
        sweeps.save(replace(sweeps.record(loss=loss), environment={"commit": commit}), tmp_path / "study")
    monkeypatch.setattr(report, "FIGURES", {})
    page = tab.open(report.write(collect([tmp_path / "study"]), tmp_path)[0])
    assert page.inner_text("#pairs tbody .said-cell").endswith(" (different code version)")
    assert "Holm" not in page.inner_text("#pairs .note")


def test_long_titles_of_panels_stand_beside_one_another(
    tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        made = sweeps.record(questions=3)
        choices = {**made.choices, "model": f"language_model_of_a_long_name_{number}", "task": f"long_task_{number}"}
        sweeps.save(replace(made, choices=choices, run_id=f"run{number}"), tmp_path / "study")
    monkeypatch.setattr(report, "FIGURES", {})
    page = tab.open(report.write(collect([tmp_path / "study"]), tmp_path)[0])
    boxes = [each.bounding_box() for each in page.locator("#chart .annotation-text").all()]
    assert len(boxes) == 3
    for one, other in pairwise(boxes):
        assert one["x"] + one["width"] < other["x"]
    assert boxes[0]["y"] >= page.locator("#chart").bounding_box()["y"]


def test_names_texts_and_errors_that_are_html_stay_text(tab: Tab, evil: Path) -> None:
    page = tab.open(evil)
    page.locator("#training").scroll_into_view_if_needed()
    page.wait_for_selector("#training-chart[data-drawn]")
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    page.locator('[data-question="q00000"]').click()
    page.wait_for_selector("#figures-drawn img")
    assert page.title() == f"{pages.EVIL} · Regraft"
    for place in ("h1", ".brand", "#facts", "#chart-legend", "#runs-table", "#config-common", ".failure", ".choices"):
        assert pages.EVIL in page.locator(place).first.text_content(), place
    assert page.locator('[data-question="q00000"]').inner_text().startswith(pages.SCRIPT)
    assert "Traceback: the whole of it" in page.locator(".failure pre").inner_text()
    # plotly reads some tags: titles of panels, and what it says of a point
    assert page.locator("#training-chart .annotation-text").last.text_content() == pages.EVIL
    page.evaluate("Plotly.Fx.hover(document.getElementById('chart'), [{ curveNumber: 7, pointNumber: 0 }])")
    assert pages.EVIL in page.locator("#chart .hoverlayer .hovertext").first.text_content()
    assert page.locator('img[src="x"], svg img, svg a').count() == 0
    assert page.evaluate("document.scripts.length") == 4
    # the policy itself: what got in as an element would not run either
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), { textContent: 'x = 1' }))")
    assert page.evaluate("typeof x") == "undefined"
    assert len(tab.said) == 1 and "Content Security Policy" in tab.said.pop()


def test_the_theme_is_the_reader_s_and_stays(tab: Tab, evil: Path) -> None:
    page = tab.open(evil)

    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    def stroke() -> str:
        return str(page.locator("#chart path.js-line").first.evaluate("line => line.style.stroke"))

    def contrasts() -> list[float]:
        """Of the edge of a control, of its arrow, of the status of a failed run and of lines, with the ground."""
        edge = page.locator("[name=chart-metric]").evaluate("each => getComputedStyle(each).borderColor")
        arrow = head(page, "seed").locator("button").evaluate("each => getComputedStyle(each, '::after').color")
        icon = page.locator("#chart .modebar-btn path").first.evaluate("each => getComputedStyle(each).fill")
        wrong = page.locator("#runs-table td.failed").evaluate("each => getComputedStyle(each).color")
        drawn = page.locator("#chart path.js-line").evaluate_all("all => all.map((each) => each.style.stroke)")
        return [contrast(each, ground()) for each in (wrong, edge, arrow, icon, *drawn)]

    page.select_option("[name=runs-status]", "failed")
    assert contrasts()[0] >= 4.5 and min(contrasts()) >= 3
    light, line = ground(), stroke()
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    assert contrasts()[0] >= 4.5 and min(contrasts()) >= 3
    assert ground() != light and stroke() != line
    page.reload()
    page.locator("#accuracy").scroll_into_view_if_needed()
    page.wait_for_selector("#chart[data-drawn]")
    assert ground() != light
    page.click("#theme")
    assert (ground(), stroke()) == (light, line)
    other = page.context.browser.new_context(color_scheme="dark")
    dark = Tab(other).open(evil)
    assert dark.evaluate("document.documentElement.dataset.theme") == "dark"
    other.close()


def test_a_phone_reads_it_without_scrolling_sideways(tab: Tab, evil: Path) -> None:
    tab.page.set_viewport_size({"width": 360, "height": 740})
    page = tab.open(evil)
    page.locator("#training").scroll_into_view_if_needed()
    page.wait_for_selector("#training-chart[data-drawn]")
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    page.locator("button.question").first.click()
    page.wait_for_selector("#chart-numbers table, #training-numbers table, #figures-drawn img")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#chart svg.main-svg").first.bounding_box()["width"] <= 360


def test_on_paper_it_is_light_and_open_and_has_no_controls(tab: Tab, evil: Path) -> None:
    page = tab.open(evil)
    page.click("#theme")
    page.emulate_media(media="print")
    page.wait_for_selector("#training-chart[data-drawn]")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#verdicts li").first.is_visible()
    for hidden in (".top", "#runs-controls", "#runs-pages", "#chart-controls"):
        assert not page.locator(hidden).is_visible(), hidden
    assert page.locator("#runs-table tbody tr").count() == 50
    assert page.locator("#figures-drawn img").count() == 1
    # what is chosen, and how much of it, is told where there are no controls
    assert "criterion L2" in page.inner_text("#training-chart-caption")
    assert page.inner_text("#answers-pages") == "1 to 25 of 40, page 1 of 2"
    assert page.locator("#figures-drawn img").get_attribute("alt") == "spread of seeds"
    page.set_viewport_size({"width": 690, "height": 900})
    assert page.locator("#landmarks pre").evaluate("each => each.scrollWidth <= each.clientWidth")
    assert page.evaluate("document.querySelector('#runs-table').scrollWidth") <= 690
    page.emulate_media(media="screen")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert not page.locator("#verdicts li").first.is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_it_is_used_by_keyboard_alone(tab: Tab, evil: Path) -> None:
    page = tab.open(evil)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "findings"
    assert page.locator("button:not([type=button])").count() == 0
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.name || document.activeElement.closest('details')?.id || ''"))
    assert {"chart-metric", "chart-axis", "chart-criterion", "chart-single", "chart-numbers"} <= reached
    named = "document.activeElement.matches(':focus-visible') && getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(named) == "solid"
    # what is drawn has a name and a description, and what is scrolled is reached and has a name
    assert page.locator("#chart svg[role=img]").get_attribute("aria-describedby") == "chart-caption"
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    scrolled = page.evaluate(
        "[...document.querySelectorAll('main *')].filter((each) => getComputedStyle(each).overflowX === 'auto')"
        ".map((each) => [each.className, each.tabIndex, each.getAttribute('aria-label')])"
    )
    assert len(scrolled) > 8 and all(place == 0 and name for _, place, name in scrolled), scrolled
    unnamed = page.evaluate(
        "[...document.querySelectorAll('select, input, button')].filter((each) => !each.closest('.modebar') && "
        "!(each.labels && each.labels.length) && !each.textContent.trim()).length"
    )
    assert unnamed == 0


def test_without_scripts_the_findings_are_read(browser: Browser, evil: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(evil.as_uri())
    assert re.search(r"does KL bring back more\s+accuracy than CE", page.inner_text("h1"))
    assert "points" in page.inner_text(".verdict")
    assert "turned off" in page.inner_text("noscript")
    context.close()


def test_five_hundred_runs_work(tab: Tab, many: Path) -> None:
    page = tab.open(many)
    assert many.stat().st_size < MOST_MEGABYTES * 1e6
    assert page.inner_text("#runs-count") == "500 of 500 runs, by run"
    assert page.locator("#runs-table tbody tr").count() == 25
    head(page, "seed").locator("button").click()
    assert set(column(page, "seed")) == {"0", "1"}
    page.select_option("[name=runs-loss]", "KL")
    assert page.inner_text("#runs-count").startswith("250 of 500 runs")
    assert "480 of 480 questions" in page.inner_text("#answers-count")
    assert lines(page) == 4


def test_many_pairs_are_folded_and_tuned_rates_are_shown(
    tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "FIGURES", {})
    losses = ("ce", "kl", "la", "lb", "lc", "ld", "le", "lf", "lg", "lh")
    for loss in losses:
        for rate in (0.1, 0.2):
            for seed in (0, 1):
                accuracy = 0.5 + rate * (1 + losses.index(loss)) / 10 + 0.02 * seed
                selection = {"accuracy": accuracy, "dense_kl": rate}
                made = sweeps.record(
                    loss=loss, seed=seed, accuracy=accuracy, learning_rate=rate, selection=selection, questions=50
                )
                sweeps.save(made, tmp_path / "study")
    page = tab.open(report.write(collect([tmp_path / "study"]), tmp_path)[0])
    page.locator("#comparisons").scroll_into_view_if_needed()
    expect(page.locator("#more-pairs > summary")).to_have_text("8 further pairs, each a family of its own for Holm")
    page.locator("#more-pairs > summary").click()
    folded = page.locator("#more-pairs > details")
    assert folded.count() == 8
    summary = folded.first.locator("summary").first.inner_text()
    assert summary.startswith("la minus CE: Of 2 comparisons: ")
    expect(folded.first.locator("table")).to_be_hidden()
    folded.first.locator("summary").first.click()
    expect(folded.first.locator("table")).to_be_visible()
    assert "0.2" in page.locator("#tuned table").inner_text()
    assert "Widen the grid" in page.inner_text("#tuned")
    assert "Best against best on the test questions" in page.inner_text("#tuned")
