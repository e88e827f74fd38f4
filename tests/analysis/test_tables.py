from __future__ import annotations

import itertools
import re
import runpy
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sweeps
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from analysis import names, tables, values
from analysis.collect import collect
from analysis.comparison import compare
from analysis.curves import points
from analysis.metrics import metric
from regraft.records import Record

SPECIAL = r"a_b&c%d#e$f~g^h\i{j}k"
"""A name with all that LaTeX takes for something else."""


def answers(share: float, seed: int = 0, noise: float = 0.0, questions: int = 200) -> np.ndarray:
    """The first questions are answered rightly; some answers are turned round, others for each seed."""
    right = np.arange(questions) < round(share * questions)
    return right ^ (np.random.default_rng(seed).random(questions) < noise)


def save(study: Path, rights: dict[str, Sequence[np.ndarray]], sparsity: float = 0.5, **more: Any) -> None:
    """One run for each loss and seed, with these answers."""
    for loss, by_seed in rights.items():
        for seed, right in enumerate(by_seed):
            made = sweeps.record(loss=loss, sparsity=sparsity, seed=seed, questions=len(right), **more)
            sweeps.save(made, study, right)


def table(study: Path, facets: Sequence[str] | None = (), **roles: Any) -> tables.Table:
    collection = collect([study])
    return tables.of(collection, points(collection, x="target", facets=facets, **roles))


def bold(made: tables.Table) -> set[tuple[str, str]]:
    """First cell of the line and header of each cell that is significantly best."""
    return {
        (line[0].text, name) for line in made.body for name, cell in zip(made.header, line, strict=True) if cell.best
    }


def renamed(study: Path, **choices: str) -> Path:
    """Two losses, two sparsities, two seeds, with these choices in the records instead."""
    for loss, sparsity, seed in itertools.product(("ce", "kl"), (0.5, 0.8), (0, 1)):
        made = sweeps.record(loss=loss, sparsity=sparsity, seed=seed, accuracy=0.5 + 0.01 * seed, questions=100)
        named = {{"criterion": "pruner/criterion"}.get(group, group): name for group, name in choices.items()}
        sweeps.save(replace(made, choices=made.choices | named), study)
    return study


def test_means_with_half_widths_and_what_they_are_over(tmp_path: Path) -> None:
    save(tmp_path, {"none": [answers(0.5)], "kl": [answers(0.6), answers(0.7)]})
    save(tmp_path, {"kl": [answers(0.4), answers(0.4)]}, sparsity=0.8)
    made = table(tmp_path)
    assert made.header == ("loss", "50 %", "80 %")
    lines = {line[0].text: [cell.text for cell in line[1:]] for line in made.body}
    # t quantile for one degree of freedom times the standard error 5
    assert lines["KL"] == ["65.0 ± 63.5", "40.0*"]
    assert lines["none"] == ["50.0* (seeds: 1)", ""]
    assert lines["dense"] == ["97.0", "97.0"]
    notes = " ".join(made.notes)
    assert "2 seeds unless a cell says otherwise, 200 questions." in notes
    assert "t quantiles" in notes and "*: no spread over seeds" in notes


def test_where_no_seeds_differ_both_ends_over_the_questions_are_told(tmp_path: Path) -> None:
    save(tmp_path, {"none": [answers(0.5)]})
    made = table(tmp_path)
    low, high = proportion_confint(100, 200, method="wilson")
    assert made.body[0][1].text == f"50.0 [{100 * low:.1f}, {100 * high:.1f}]"
    assert "±" not in made.title and "over the questions (Wilson)" in " ".join(made.notes)


def test_metrics_that_are_no_shares_have_the_numbers_of_the_other_outputs(tmp_path: Path) -> None:
    for seed in (0, 1):
        made = sweeps.record(seed=seed)
        row = replace(made.rows[1], metric="parameters", split="", n=None, value=1_234_567.0)
        sweeps.save(replace(made, rows=[*made.rows, row]), tmp_path)
    collection = collect([tmp_path])
    written = tables.of(collection, points(collection, metric("parameters"), "target", facets=[])).written("text")
    assert "1,234,567" in written and "\n±: " not in written and "No interval: one seed" in written
    assert "Bold" not in written


def test_large_numbers_head_columns_in_full(tmp_path: Path) -> None:
    for size in (1_234_567, 1_234_568):
        for seed in (0, 1):
            made = sweeps.record(seed=seed, train_size=size)
            row = replace(made.rows[0], split="recovery", n=size)
            sweeps.save(replace(made, rows=[*made.rows, row]), tmp_path, with_predictions=False)
    collection = collect([tmp_path])
    made = tables.of(collection, points(collection, x="recovery_questions", facets=[]))
    assert made.header[-2:] == ("1,234,567", "1,234,568")


def test_dense_models_that_differ_by_seed_are_one_line(tmp_path: Path) -> None:
    for seed, dense in enumerate((0.9, 0.8)):
        made = sweeps.record(seed=seed)
        rows = [replace(made.rows[0], value=dense), *made.rows[1:]]
        sweeps.save(replace(made, rows=rows), tmp_path, with_predictions=False)
    assert [[cell.text for cell in line] for line in table(tmp_path).body][1:] == [["dense", "85.0"]]


def test_a_run_without_the_setting_of_a_line_makes_one_line(tmp_path: Path) -> None:
    for loss in ("ce", "kl"):
        for seed in (0, 1):
            setting = {"temperature": 2.0} if loss == "kl" else {}
            sweeps.save(sweeps.record(loss=loss, seed=seed, loss_settings=setting), tmp_path)
    made = table(tmp_path, lines=["loss.temperature"])
    assert [[cell.text for cell in line[:2]] for line in made.body] == [["CE", ""], ["KL", "2.0"], ["dense", ""]]


def test_bold_where_one_beats_all(tmp_path: Path) -> None:
    save(
        tmp_path,
        {
            "none": [answers(0.3)] * 3,
            "ce": [answers(0.5, seed, 0.02) for seed in range(3)],
            "kl": [answers(0.8, seed + 9, 0.02) for seed in range(3)],
        },
    )
    made = table(tmp_path)
    assert bold(made) == {("KL", "50 %")}
    text = next(cell.text for line in made.body for cell in line if cell.best)
    assert f"**{text}" in made.written("markdown") and "<b>" + text in made.written("html")
    assert rf"\textbf{{{tables.latex(text)}}}" in made.written("latex")


def test_no_bold_where_one_beats_only_another(tmp_path: Path) -> None:
    save(
        tmp_path,
        {
            "none": [answers(0.3)] * 3,
            "ce": [answers(0.7, seed, 0.05) for seed in range(3)],
            "kl": [answers(0.71, seed + 9, 0.05) for seed in range(3)],
        },
    )
    assert not bold(table(tmp_path))


def test_a_single_seed_is_never_bold(tmp_path: Path) -> None:
    save(tmp_path, {"ce": [answers(0.1)], "kl": [answers(0.9)]})
    made = table(tmp_path)
    assert not bold(made)
    assert not any("not tested" in note for note in made.notes)


def test_a_line_with_too_few_seeds_is_not_passed_over(tmp_path: Path) -> None:
    """KL beats CE, but of the line with one seed nothing is known, so KL is not best."""
    save(
        tmp_path,
        {
            "none": [answers(0.1)],
            "ce": [answers(0.3, seed, 0.02) for seed in range(3)],
            "kl": [answers(0.8, seed, 0.02) for seed in range(3)],
        },
    )
    made = table(tmp_path)
    assert not bold(made)
    assert "none and KL: not tested at 50 %" in " ".join(made.notes)
    assert "fewer than two seeds in common" in " ".join(made.notes)


def test_lines_that_answered_different_questions_are_not_tested(tmp_path: Path) -> None:
    for sparsity in (0.5, 0.8):
        save(
            tmp_path,
            {
                "ce": [answers(0.2, seed, 0.02, questions=100) for seed in range(2)],
                "kl": [answers(0.9, seed, 0.02) for seed in range(2)],
            },
            sparsity,
        )
    made = table(tmp_path)
    assert not bold(made)
    told = [note for note in made.notes if "not tested" in note]
    assert len(told) == 1
    assert told[0].startswith("CE and KL: not tested at 50 %, 80 %, so neither can be bold there: ")
    assert "answered different questions" in told[0]


def test_missing_predictions_are_a_marked_gap(tmp_path: Path) -> None:
    save(tmp_path, {"ce": [answers(0.2, seed, 0.02) for seed in range(2)]})
    for seed in (0, 1):
        sweeps.save(sweeps.record(loss="kl", seed=seed, accuracy=0.9), tmp_path, with_predictions=False)
    made = table(tmp_path)
    assert not bold(made)
    assert any("CE and KL: not tested" in note and "is missing" in note for note in made.notes)
    assert all(line.startswith(("%", "\\", "loss", "CE", "KL", "dense")) for line in made.written("latex").splitlines())


def test_holm_is_over_all_pairs_of_the_table(tmp_path: Path) -> None:
    losses, sparsities, seeds = ("none", "ce", "kl"), (0.5, 0.8), 5
    shares = {0.5: {"none": 0.3, "ce": 0.60, "kl": 0.657}, 0.8: {"none": 0.3, "ce": 0.31, "kl": 0.6}}
    for sparsity in sparsities:
        save(
            tmp_path,
            {
                loss: [answers(shares[sparsity][loss], 100 * row + seed, 0.12) for seed in range(seeds)]
                for row, loss in enumerate(losses)
            },
            sparsity,
        )
    collection = collect([tmp_path])
    tests = [
        (found.sparsity, first, second, found.difference, found.estimate.p)
        for first, second in itertools.combinations(losses, 2)
        for found in compare(collection, "loss", first, second)[0]
        if found.estimate is not None
    ]
    raw = [p for *_, p in tests]
    assert len(raw) == 6
    adjusted = multipletests(raw, method="holm")[1]

    def best(p_values: Sequence[float]) -> set[tuple[str, str]]:
        wins = {
            (sparsity, *((first, second) if difference > 0 else (second, first)))
            for (sparsity, first, second, difference, _), p in zip(tests, p_values, strict=True)
            if p < 0.05
        }
        named = {"none": "none", "ce": "CE", "kl": "KL"}
        return {
            (named[loss], f"{100 * sparsity:g} %")
            for sparsity in sparsities
            for loss in losses
            if all((sparsity, loss, other) in wins for other in losses if other != loss)
        }

    # the case is chosen such that the adjustment decides
    assert best(raw) != best(adjusted) != set()
    assert bold(table(tmp_path)) == best(adjusted)


def test_criteria_are_panels_with_a_bold_cell_of_their_own(tmp_path: Path) -> None:
    for criterion, better, worse in (("l2", "kl", "ce"), ("random", "ce", "kl")):
        save(
            tmp_path,
            {
                better: [answers(0.8, seed, 0.02) for seed in range(3)],
                worse: [answers(0.4, seed + 9, 0.02) for seed in range(3)],
            },
            criterion=criterion,
        )
    made = table(tmp_path, facets=None)
    found = {(line[0].text, line[1].text) for line in made.body if any(cell.best for cell in line)}
    assert found == {("L2", "KL"), ("random", "CE")}
    assert made.rules == {2, 4}


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))


def test_latex_has_as_many_cells_as_columns_and_nothing_unescaped(tmp_path: Path) -> None:
    written = table(renamed(tmp_path, criterion=SPECIAL, task="[x]*"), facets=["criterion", "task"]).written("latex")
    lines = written.splitlines()
    assert lines[-1] == r"\end{tabular}" and lines.count(r"\midrule") == 2
    columns = next(line for line in lines if line.startswith(r"\begin{tabular}"))
    assert columns == r"\begin{tabular}{lllrr}"
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 4
    for row in rows:
        assert len(cells(row)) == 5
        bare = row.removesuffix(r" \\").replace(" & ", " ")
        for escape in (*tables.LATEX.values(), r"\textbf"):
            bare = bare.replace(escape, "")
        assert not set(bare) & set(r"_&%#$~^\{}[]*"), bare


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path: Path) -> None:
    study = renamed(tmp_path / SPECIAL, criterion=SPECIAL, task="[größe] *", recovery="<a> | -b")
    collection = collect([study])
    found, _ = values.values(collection)
    values.write(found, tmp_path)
    made = tables.of(collection, points(collection, x="target", facets=["task", "criterion"], lines=["recovery"]))
    (tmp_path / "table.tex").write_text(made.written("latex") + "\n", encoding="utf-8")
    told = "\n".join(rf"\typeout{{VALUE \regraft{{{key}}}}}" for key, _ in found)

    def compiled(body: str) -> tuple[int, str]:
        document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}\input{{values}}{body}"
        (tmp_path / "paper.tex").write_text(document + "\n\\end{document}\n", encoding="utf-8")
        done = subprocess.run(
            ["pdflatex", "-draftmode", "-no-shell-escape", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            env={"PATH": str(Path(str(shutil.which("pdflatex"))).parent), "max_print_line": "10000"},
        )
        return done.returncode, (tmp_path / "paper.log").read_text(encoding="utf-8", errors="replace")

    code, log = compiled(f"\\input{{table}}\n{told}")
    assert code == 0, log
    printed = re.findall(r"^VALUE (.*)$", log, re.MULTILINE)
    assert len(printed) == len(found)
    plain = [(text, shown) for (_, text), shown in zip(found, printed, strict=True) if re.fullmatch(r"[\d.,+]+", text)]
    assert len(plain) > 20 and all(text == shown for text, shown in plain)
    code, log = compiled(r"\regraft{missing}")
    assert code != 0
    assert "No value `missing'" in log


def test_markdown_shows_names_as_they_are(tmp_path: Path) -> None:
    name = r"a|b*c_d<i>e\f`g[h]"
    written = table(renamed(tmp_path, criterion=name), facets=["criterion"]).written("markdown")
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert rows[1] == "| --- | --- | ---: | ---: |"
    for row in rows:
        assert len(re.split(r"(?<!\\)\|", row)) == 6, row
    first = rows[2].split(" | ")[0].removeprefix("| ")
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", first) == name
    assert not re.search(r"(?<!\\)[*_<`\[]", first)
    # each note is an item: lines that follow each other would become one paragraph
    assert written.splitlines()[-1].startswith("- ")


def test_html_shows_names_as_they_are(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    written = table(renamed(tmp_path, task=name), facets=["task"]).written("html")
    seen: list[str] = []
    shown: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: seen.append(tag)  # type: ignore[method-assign]
    parser.handle_data = shown.append  # type: ignore[method-assign]
    parser.feed(written)
    assert set(seen) == {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
    assert name in shown
    assert written.count("<tr>") == written.count("</tr>") == 4


def test_negative_numbers_have_a_minus_sign() -> None:
    assert tables.latex("-0.3 [-1.2, 3]") == "$-$0.3 {[}$-$1.2, 3{]}"
    assert tables.latex("one-shot, tiny-2, 2022-01") == "one-shot, tiny-2, 2022-01"


def test_methods_are_written_as_their_papers_write_them(tmp_path: Path) -> None:
    written = table(renamed(tmp_path, criterion="sparsegpt"), facets=["criterion"]).written("markdown")
    assert "| SparseGPT |" in written
    assert names.value("structure", "kv_groups") == "KV groups"
    assert names.value("structure", "n_m") == "N:M"
    assert names.value("allocation", "per_layer") == "per layer"
    assert names.value("loss", "kl") == "KL"


def test_a_share_that_rounded_to_no_unit_is_told(tmp_path: Path) -> None:
    for sparsity, removed in ((0.0, 0.0), (0.1, 0.0), (0.5, 0.5)):
        made = sweeps.record(sparsity=sparsity)
        rows = [replace(row, block_sparsity=removed if row.stage_index == 4 else 0.0) for row in made.rows]
        sweeps.save(replace(made, rows=rows), tmp_path / "study")
    told = [note for note in table(tmp_path / "study").notes if "othing was removed" in note]
    assert told == ["Nothing was removed from 1 of the runs at 10 %: that rounds to no unit."]


@pytest.mark.parametrize("shuffled", [(True,), (False, True)])
def test_a_shuffled_run_is_never_without_its_name(tmp_path: Path, shuffled: Sequence[bool]) -> None:
    for each in shuffled:
        sweeps.save(sweeps.record(accuracy=0.6 - 0.1 * each, pruner_settings={"shuffled": each}), tmp_path / "study")
    made = table(tmp_path / "study")
    told = {line[made.header.index("variant")].text for line in made.body if not line[0].text.startswith("dense")}
    assert told == {f"pruner.shuffled={each}" for each in shuffled}
    # what has a role of its own is not told twice
    assert "variant" not in points(collect([tmp_path / "study"]), lines=["pruner.shuffled"]).lines
    sweeps.save(sweeps.record(pruner_settings={"shuffled": False}), tmp_path / "plain")
    assert "variant" not in table(tmp_path / "plain").header


@pytest.mark.parametrize(
    ("budget", "counted"), [("parameters", "parameters"), ("macs", "MACs"), ("latency", "a token's time")]
)
def test_a_budget_is_never_without_its_name(tmp_path: Path, budget: str, counted: str) -> None:
    made = sweeps.record()
    sweeps.save(replace(made, choices=made.choices | {"pruner/budget": budget}), tmp_path / "study")
    found = table(tmp_path / "study")
    assert found.body[0][found.header.index("budget")].text == budget
    assert f"by requested share of {counted} removed" in found.title
    sweeps.save(made, tmp_path / "plain")
    assert "budget" not in table(tmp_path / "plain").header


def test_the_docs_table_puts_no_control_into_the_line_of_its_criterion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for accuracy, shuffled, budget in ((0.9, False, "units"), (0.5, True, "units"), (0.7, False, "macs")):
        made = sweeps.record(loss="none", accuracy=accuracy, pruner_settings={"shuffled": shuffled})
        made = replace(made, run_id=f"{budget}{shuffled}", choices=made.choices | {"pruner/budget": budget})
        sweeps.save(made, tmp_path / "study")
    runpy.run_path(str(Path(__file__).parents[2] / "docs" / "pruning" / "table.py"))["main"]([str(tmp_path / "study")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "| L2, budget macs | 70.0 |",
        "| L2, pruner.shuffled=False | 90.0 |",
        "| L2, pruner.shuffled=True | 50.0 |",
    ]


def bounded(budget: str, at_most: float, dense: float, sparsity: float = 0.9, **more: Any) -> Record:
    """A run that was given a budget by itself; `sparsity` is the most that may go for it."""
    made = sweeps.record(sparsity=sparsity, pruner_settings={"budget": {"at_most": at_most}}, **more)
    told = {"budget": {"dense": dense, "allowed": at_most, "reached": at_most - 1, "amount": 0.4}}
    stages = [
        replace(stage, details=stage.details | told) if stage.stage == "prune" and sparsity else stage
        for stage in made.stages
    ]
    return replace(made, stages=stages, choices=made.choices | {"pruner/budget": budget})


def test_a_bound_is_told_as_the_share_that_it_does_not_allow(tmp_path: Path) -> None:
    for at_most, sparsity in itertools.product((800_000, 500_000), (0.0, 0.9)):
        sweeps.save(bounded("parameters", at_most, 1_000_000, sparsity), tmp_path / "study")
    found = table(tmp_path / "study")
    assert found.header == ("loss", "budget", "0 %", "20 %", "50 %") and len(found.body) == 2
    assert "share of parameters removed" in found.title
    collection = collect([tmp_path / "study"])
    assert set(points(collection, x="target").table["x"]) == {0.0, 0.2, 0.5}
    assert set(collection.table()["target_sparsity"]) == {0.0, 0.2, 0.5}


def test_a_bound_of_time_is_one_point_though_clocks_differ(tmp_path: Path) -> None:
    for seed, dense in enumerate((9.98, 10.0, 10.03)):
        sweeps.save(bounded("latency", 7.0, dense, seed=seed, accuracy=0.5 + 0.01 * seed), tmp_path / "study")
    found = table(tmp_path / "study")
    assert found.header[-1] == "30 %" and len(found.body) == 2
    # what the model can do already asks for nothing
    sweeps.save(bounded("latency", 12.0, 10.0), tmp_path / "enough")
    assert table(tmp_path / "enough").header[-1] == "0 %"
