"""The page of a sweep: what is in it, and that nothing in it can act. And the files of the table."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pandas
import pytest
import sweeps

from analysis import report, tables
from analysis.__main__ import main
from analysis.collect import Collection, collect
from analysis.curves import points, summarise
from analysis.figures import pareto
from analysis.metrics import ACCURACY, metric
from analysis.report import findings
from regraft.records import PREDICTIONS, Record

Made = Callable[..., dict[str, Any]]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return sweeps.grid(tmp_path / "study", criteria=("l2",), sparsities=(0.0, 0.8), seeds=(0, 1), questions=50)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FIGURES", {})


@pytest.fixture
def made(tmp_path: Path, without_figures: None) -> Made:
    """The data of the page of some folders."""

    def of(*folders: Path) -> dict[str, Any]:
        path, _ = report.write(collect(folders), tmp_path)
        return pages.data(path)

    return of


def test_the_page_holds_all_verdicts_and_its_figures(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(small)]) == 0
    said = capsys.readouterr().out
    page = small / "report.html"
    told = pages.data(page)
    # what is printed is the first pair; the page has KL and CE against none too
    assert said.count("same units") == 2
    assert [(pair["a"], pair["b"]) for pair in told["pairs"]] == [
        ("KL", "CE"),
        ("KL", "no recovery"),
        ("CE", "no recovery"),
    ]
    assert sum("same units" in row["verdict"] for pair in told["pairs"] for row in pair["rows"]) == 6
    drawn = pages.pictures(page)
    assert len(drawn) >= 4
    for each in drawn:
        kind, _, picture = each["picture"].partition(",")
        assert kind == "data:image/png;base64" and base64.b64decode(picture).startswith(b"\x89PNG")
        assert each["caption"]
    assert "capacity_gap" in dict(told["not_drawn"])
    assert told["account"][0].startswith("12 finished runs")
    assert ["L2", "KL"] in [[cell[0] for cell in line[:2]] for line in told["table"]["body"]]
    assert (small / "results.csv").is_file() and not (small / "report.md").exists()


def test_a_run_without_answers_is_a_gap_on_the_page(small: Path, made: Made) -> None:
    broken = next(small.glob(f"*/{PREDICTIONS}"))
    broken.unlink()
    told = made(small)
    gaps = [gap for pair in told["pairs"] for gap in pair["gaps"]]
    assert any("are not compared: " in gap and broken.parent.name in gap for gap in gaps)
    assert any(broken.parent.name in gap for gap in told["answers"]["gaps"])
    assert sum(len(pair["rows"]) for pair in told["pairs"]) >= 2


def test_the_table_is_written_in_four_forms(small: Path, tmp_path: Path) -> None:
    assert main(["tables", str(small), "--output", str(tmp_path / "out")]) == 0
    starts = {"txt": "Accuracy", "md": "Accuracy", "tex": "% Accuracy", "html": "<table>"}
    for ending, start in starts.items():
        assert (tmp_path / "out" / f"table.{ending}").read_text().startswith(start)


def test_nothing_but_the_two_scripts_of_the_page_may_run(small: Path, without_figures: None) -> None:
    path, _ = report.write(collect([small]), small)
    text = path.read_text(encoding="utf-8")
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    rules = dict(rule.strip().split(" ", 1) for rule in html.unescape(policy).split(";"))
    scripts = re.findall(r'<script(?: type="text/plain" id="library")?>(.*?)</script>', text, re.DOTALL)
    assert len(scripts) == 2
    hashes = {base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts}
    assert set(rules["script-src"].split()) == {f"'sha256-{each}'" for each in hashes}
    assert {rules[name] for name in ("default-src", "connect-src", "base-uri", "form-action")} == {"'none'"}
    assert rules["img-src"] == "data: blob:"
    # of the page itself; the library holds addresses in its texts
    own = text.replace(max(scripts, key=len), "")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", own)


def test_names_that_are_html_stay_text_in_the_file(evil: Path) -> None:
    text = evil.read_text(encoding="utf-8")
    assert "<img" not in text.partition('<script type="text/plain"')[0] and pages.SCRIPT not in text
    for name in ("data", "pictures"):
        assert not set(pages.script(text, name)) & set("<>&\u2028\u2029")
    told = pages.data(evil)
    assert pages.EVIL in told["study"]["question"]
    assert told["answers"]["sets"][0]["texts"][0] == [pages.SCRIPT, [pages.EVIL, "blue", "green", "grey", "pink"]]
    assert ["recovery.note", pages.EVIL] in told["configs"]["common"]


@pytest.mark.parametrize(
    ("settings", "question", "verdict"),
    [
        (
            [{"loss": loss, "sparsity": sparsity} for loss in ("kl", "ce") for sparsity in (0.3, 0.8)],
            "After removing 30 to 80 % of MLP neurons of tiny_olmo2 by L2, does KL bring back more accuracy than CE on "
            "facts?",
            "Nothing is claimed. KL and CE answer every question alike at ",
        ),
        (
            [{"loss": loss, "criterion": each} for loss in ("kl", "none") for each in ("l2", "l1", "random")],
            "After removing 50 % of MLP neurons of tiny_olmo2 by L1, by L2 or at random, does L1 keep more accuracy "
            "than random removal on facts?",
            "Nothing is claimed. ",
        ),
        (
            [{"loss": "kl", "criterion": each} for each in ("l2", "random")],
            "After removing 50 % of MLP neurons of tiny_olmo2 by L2 or at random, does L2 keep more accuracy than "
            "random removal on facts?",
            "Nothing is claimed. ",
        ),
        (
            [{"loss": "kl"}],
            "After removing 50 % of MLP neurons of tiny_olmo2 by L2, how much accuracy does recovery by KL leave on "
            "facts?",
            "Accuracy is ",
        ),
        (
            [{"loss": loss, "sparsity": 0.0} for loss in ("kl", "ce")],
            "With nothing removed from tiny_olmo2, does KL keep more accuracy than CE on facts?",
            "Nothing is claimed. ",
        ),
        (
            [
                {"loss": loss, "train_size": size, "recovery_questions": size}
                for loss in ("kl", "ce")
                for size in (15, 30)
            ],
            "After removing 50 % of MLP neurons of tiny_olmo2 by L2, with 15 to 30 recovery questions, does KL bring "
            "back more accuracy than CE on facts?",
            "Nothing is claimed. ",
        ),
    ],
)
def test_the_question_is_built_from_what_varied(
    sweep: Callable[..., Collection], settings: list[dict[str, Any]], question: str, verdict: str
) -> None:
    collection = sweep(*settings)
    told = findings.study(collection, findings.pairs(collection))
    assert told["question"] == question
    assert told["verdict"].startswith(verdict)


def answered(folder: Path, gains: dict[float, int], losses: tuple[str, str] = ("kl", "ce")) -> Collection:
    """Five seeds; at each sparsity the first loss answers so many questions more."""
    for sparsity, more in gains.items():
        for loss in losses:
            for seed in range(5):
                right = np.arange(100) < 50 + (more if loss == losses[0] else 0) + seed % 2
                right[90 + seed] = (loss == losses[0]) == (seed % 2 == 0)
                sweeps.save(sweeps.record(loss=loss, sparsity=sparsity, seed=seed, questions=100), folder, right=right)
    return collect([folder])


def test_the_verdict_is_the_strongest_claim_and_tells_the_others(tmp_path: Path) -> None:
    collection = answered(tmp_path / "study", {0.0: 30, 0.5: 20, 0.8: 0})
    (pair,) = findings.pairs(collection)
    strongest = next(each for each in pair.comparisons if each.sparsity == 0.5)
    told = findings.study(collection, [pair])
    assert strongest.claimed and strongest.verdict.startswith(told["verdict"].removesuffix("."))
    assert told["rests"].startswith("100 questions x 5 seeds, p ")
    assert "Of 2 comparisons: KL is better in 1, they are not told apart in 1." in told["more"]
    # 0 % is the larger difference, but there is nothing to bring back: it is no answer
    assert "Where nothing is removed, KL is better than CE by " in told["more"]
    assert told["more"].endswith("Intervals are not adjusted for the number of comparisons; the verdict follows p.")


def test_the_largest_of_several_claims_is_told_as_such(tmp_path: Path) -> None:
    collection = answered(tmp_path / "study", {0.5: 20, 0.8: 30, 0.9: 25})
    told = findings.study(collection, findings.pairs(collection))
    assert told["verdict"].startswith("Largest of 3 claimed differences: KL is better than CE by 3")
    assert " at 80 % of MLP neurons removed by L2." in told["verdict"]


def test_with_nothing_removed_the_verdict_names_no_sparsity_and_no_criterion(tmp_path: Path) -> None:
    collection = answered(tmp_path / "study", {0.0: 30})
    told = findings.study(collection, findings.pairs(collection))
    assert re.fullmatch(r"KL is better than CE by [\d.]+ points \[[\d., ]+\]\.", told["verdict"])


def test_a_comparison_that_no_test_was_made_of_is_not_one_that_failed_to_tell_apart(
    sweep: Callable[..., Collection],
) -> None:
    alike = [{"loss": loss, "seed": seed} for loss in ("kl", "ce") for seed in (0, 1)]
    no_spread = [
        {"loss": loss, "sparsity": 0.8, "accuracy": 1.0 * (loss == "kl"), "seed": seed}
        for loss in ("kl", "ce")
        for seed in (0, 1)
    ]
    (pair,) = findings.pairs(sweep(*alike, *no_spread))
    told = findings.plain(pair)
    assert [(row["said"], row["p"]) for row in told["rows"]] == [("alike", ""), ("no spread", "")]
    assert told["summary"].startswith(
        "Of 2 comparisons: they answer every question alike in 1, nothing can be claimed in 1."
    )
    assert "Holm" not in told["summary"]


def test_a_measurement_that_two_criteria_share_is_counted_once(tmp_path: Path) -> None:
    for criterion in ("l2", "random"):
        for loss in ("kl", "ce"):
            for seed in range(3):
                right = (np.arange(100) + seed) % 4 > (loss == "ce")
                made = sweeps.record(criterion=criterion, loss=loss, seed=seed, sparsity=0.0, questions=100)
                stages = [replace(each, key=f"{loss}{seed}{each.index}") for each in made.stages]
                sweeps.save(replace(made, stages=stages), tmp_path / "study", right=right)
    told = findings.plain(findings.pairs(collect([tmp_path / "study"]))[0])
    assert [row["notes"] for row in told["rows"]] == [[], ["the same measurement as 0 % by L2, counted once"]]
    assert told["summary"].startswith("Of 1 comparison: ")


def test_a_different_code_version_is_noted_beside_the_verdict(tmp_path: Path) -> None:
    for loss, commit in (("kl", "aaa"), ("ce", "bbb")):
        made = sweeps.record(loss=loss)
        sweeps.save(replace(made, environment={"commit": commit}), tmp_path / "study")
    told = findings.plain(findings.pairs(collect([tmp_path / "study"]))[0])
    assert told["rows"][0]["notes"] == ["different code version"]


def test_a_study_of_criteria_begins_with_them_unless_it_is_one_of_kl_and_ce(sweep: Callable[..., Collection]) -> None:
    def begun(losses: tuple[str, ...], sparsity: float = 0.5) -> list[tuple[str, str]]:
        settings = [
            {"loss": loss, "criterion": each, "sparsity": sparsity}
            for loss in losses
            for each in ("l1", "l2", "random")
        ]
        return [(pair.a, pair.b) for pair in findings.pairs(sweep(*settings))]

    criteria = [("l1", "random"), ("l2", "random")]
    assert begun(("kl", "none")) == [*criteria, ("kl", "none")]
    assert begun(("kl", "ce")) == [("kl", "ce"), *criteria]
    own = findings.pairs(sweep(*({"loss": "kl", "criterion": each} for each in ("taylor", "mine"))))
    assert [(pair.a, pair.b) for pair in own] == [("taylor", "mine")], "criteria that are not known here"
    # where nothing is removed a criterion has nothing to say
    assert begun(("kl", "none"), sparsity=0.0) == [("kl", "none")]


def test_where_nothing_is_compared_the_range_of_what_differs_is_told(sweep: Callable[..., Collection]) -> None:
    collection = sweep(
        *(
            {
                "teacher_parameters": size,
                "sparsity": sparsity,
                "seed": seed,
                "accuracy": more + sparsity / 2 + seed / 50,
            }
            for size, more in ((1000, 0.1), (2000, 0.3))
            for sparsity in (0.5, 0.8)
            for seed in (0, 1)
        )
    )
    told = findings.study(collection, findings.pairs(collection))
    assert "leave with teachers of 1,000 to 2,000 parameters on facts?" in told["question"]
    assert told["rests"] == "no difference is tested"
    first, second = told["verdict"].split(", and lies between ")
    assert first.startswith("Accuracy lies between 36.0 % [") and first.endswith("for sparsity 50 %")
    assert "over seeds] (teacher parameters 1,000) and 56.0 % [" in first
    assert second.startswith("51.0 % [") and second.endswith("(teacher parameters 2,000) for sparsity 80 %.")


def test_where_no_run_has_a_partner_the_commonest_reason_is_in_the_verdict(sweep: Callable[..., Collection]) -> None:
    collection = sweep(
        *({"loss": loss, "lr": rate} for loss, rates in (("kl", (1, 2)), ("ce", (3,))) for rate in rates)
    )
    told = findings.study(collection, findings.pairs(collection))
    assert told["verdict"] == (
        "KL and CE could not be compared. The reason, given for 3 runs: no partner that equals it in all but loss, "
        "left out."
    )
    assert told["more"].startswith("Accuracy ")


def test_runs_that_were_left_out_on_demand_are_told_at_the_top(study: Collection) -> None:
    assert "only runs with" not in dict(findings.study(study, [])["facts"])
    chosen = study.where({"loss": ["kl", "ce"]})
    assert dict(findings.study(chosen, [])["facts"])["only runs with"] == "loss=kl,ce"


def test_bold_is_explained_where_something_is_bold() -> None:
    for bold in (True, False):
        cell = tables.Cell("-0.3", bold)
        found = tables.Table(title="", header=("",), body=((cell,),), left=0, notes=("n", tables.BOLD))
        told = findings.table(found)
        assert told["notes"] == ["n", tables.BOLD][: 1 + bold]
        assert told["body"] == [[["−0.3", bold]]]


def test_seconds_are_those_of_own_stages_and_none_where_the_training_was_anothers(tmp_path: Path, made: Made) -> None:
    for seed, reused in enumerate(((), ("prepare",), ("prepare", "recover"))):
        run = sweeps.record(seed=seed)
        stages = [replace(each, reused=each.stage in reused) for each in run.stages]
        sweeps.save(replace(run, stages=stages), tmp_path / "study")
    told = made(tmp_path / "study")
    (seconds,) = (each for each in told["runs"]["numbers"] if each["key"] == "seconds")
    assert seconds["label"] == "seconds of own stages, by clock"
    found = {run.seed: value for run, value in zip(collect([tmp_path / "study"]).runs, seconds["values"], strict=True)}
    assert found == {0: 5.0, 1: 4.0, 2: None}


def test_none_is_a_value_of_a_column_and_absence_of_a_config(tmp_path: Path, made: Made) -> None:
    sweeps.save(sweeps.record(), tmp_path / "study")
    sweeps.save(sweeps.record(subset=3), tmp_path / "study")
    run = sweeps.record(subset=3, seed=1)
    sweeps.save(replace(run, config={**run.config, "extra": 1}), tmp_path / "study")
    told = made(tmp_path / "study")
    column = next(each for each in told["columns"] if each["key"] == "subset")
    assert sorted(column["values"]) == ["", "3"] and None not in column["codes"]
    extra = next(each for each in told["configs"]["differing"] if each["key"] == "extra")
    assert extra["values"] == ["1"] and sorted(extra["codes"], key=str) == [0, None, None]


def test_where_nothing_is_told_apart_the_verdict_says_so(tmp_path: Path) -> None:
    collection = answered(tmp_path / "study", {0.5: 0, 0.8: 0})
    told = findings.study(collection, findings.pairs(collection))
    assert told["verdict"].startswith("KL and CE are not told apart. The largest of 2 differences, KL minus CE, is ")
    # a minus sign, no hyphen
    assert re.search(r"points \[−\d", told["verdict"])


def test_the_charts_have_the_numbers_of_the_analysis(study: Collection, without_figures: None, tmp_path: Path) -> None:
    told = pages.data(report.write(study, tmp_path)[0])
    (view,) = told["charts"]
    axes = {each["name"]: each for each in view["axes"]}
    assert set(axes) == {
        "target",
        "block",
        "model",
        "retention",
        "parameters",
        "bytes",
        "macs_per_token",
        "milliseconds_per_token",
        "milliseconds_per_new_token",
    }
    assert axes["block"]["label"] == "Share of MLP neurons removed (%)"
    assert "by the clock" in axes["milliseconds_per_token"]["label"]
    for name in ("accuracy", "nll", "tokens_per_second"):
        means = view["metrics"][name]["means"]
        for x in ("block", "parameters", "milliseconds_per_token"):
            expected = summarise(points(study, metric(name), x))
            for key, column in {"mean": means["mean"], "low": means["low"], "x": means["x"][x]}.items():
                found = np.array(column, dtype=float)
                np.testing.assert_allclose(found, expected[key].to_numpy(float), rtol=1e-5, err_msg=f"{name} {x} {key}")
            assert means["over"] == expected["over"].tolist()
    conditions = view["metrics"]["accuracy"]["conditions"]
    assert [conditions[number] for number in view["metrics"]["accuracy"]["means"]["condition"]][:1] == [["L2", "CE"]]
    panels = view["metrics"]["accuracy"]["panels"]
    assert [panel["title"] for panel in panels] == ["criterion L2", "criterion random"]
    assert [(panel["dense"], panel["chance"]) for panel in panels] == [([0.97], 0.2)] * 2
    assert view["metrics"]["accuracy"]["panel"] == [0, 0, 0, 1, 1, 1]
    assert {panel["chance"] for panel in view["metrics"]["nll"]["panels"]} == {None}
    assert {view["metrics"][name]["asked"] for name in ("parameters", "bytes", "macs_per_token")} == {False}
    assert view["colours"]["KL"] == ["#0072B2", "square"] and view["colours"]["CE"] == ["#D55E00", "circle"]


def test_the_front_is_that_of_each_panel_where_better_has_a_meaning(
    study: Collection, without_figures: None, tmp_path: Path
) -> None:
    (view,) = pages.data(report.write(study, tmp_path)[0])["charts"]
    blocks = view["metrics"]
    told = {name: set(block["fronts"]) for name, block in blocks.items()}
    # neither the clock, nor entropy, nor sizes against sizes
    assert told.pop("accuracy") == told.pop("nll") == {"parameters", "bytes", "macs_per_token"}
    assert not any(told[name] for name in ("entropy", "tokens_per_second", "milliseconds_per_token", "parameters"))
    assert not any(told[name] for name in ("non_embedding_parameters", "bytes", "macs_per_token"))
    front, owners = blocks["accuracy"]["fronts"]["parameters"], blocks["accuracy"]["runs"]
    for panel, criterion in enumerate(("l2", "random")):
        alone = replace(study, runs=tuple(run for run in study.runs if run.choice("criterion") == criterion))
        table, chooses, _ = pareto.points(alone, metric("parameters"), ACCURACY)
        drawn = {
            study.runs[owners["run"][row]].record.run_id
            for row in front["rows"]
            if blocks["accuracy"]["panel"][owners["condition"][row]] == panel
        }
        assert front["split"] == chooses and drawn == set(table[table["front"]]["run_id"])


def test_each_panel_has_the_dense_model_of_its_own_and_a_title_that_tells_it(tmp_path: Path, made: Made) -> None:
    for model, task, size, accuracy in (("small", "facts", 1e6, 0.97), ("large", "words", 9e6, 0.6)):
        for criterion in ("l2", "random"):
            record = sweeps.record(
                criterion=criterion, metrics={"parameters": size / 2}, dense={"parameters": size, "accuracy": accuracy}
            )
            choices = {**record.choices, "model": model, "task": task, "preparation": f"{model}_fine_tune"}
            sweeps.save(replace(record, choices=choices, run_id=f"{criterion}_{model}"), tmp_path / "study")
    (view,) = made(tmp_path / "study")["charts"]
    panels = {panel["title"]: panel["stars"]["parameters"] for panel in view["metrics"]["accuracy"]["panels"]}
    # how the model was prepared follows from which it is
    assert panels == {
        "criterion L2, model large, task words": [[9_000_000, 0.6]],
        "criterion L2, model small, task facts": [[1_000_000, 0.97]],
        "criterion random, model large, task words": [[9_000_000, 0.6]],
        "criterion random, model small, task facts": [[1_000_000, 0.97]],
    }


def test_what_was_varied_is_the_first_axis(scaling: Collection, without_figures: None, tmp_path: Path) -> None:
    told = pages.data(report.write(scaling, tmp_path)[0])
    assert [view["swept"] for view in told["charts"]] == ["recovery_questions"]
    (axis,) = told["charts"][0]["axes"]
    assert axis["label"] == "Recovery questions" and axis["logarithmic"]


def test_training_curves_have_a_bounded_number_of_points(tmp_path: Path, made: Made) -> None:
    for seed in (0, 1):
        sweeps.save(sweeps.record(seed=seed), tmp_path / "study", losses=list(np.linspace(3, 1, 1000) + seed))
    told = made(tmp_path / "study")["training"]
    assert told["averaged"] == 9
    run, steps, loss, rate, _ = told["lines"][0]
    assert run == 0 and len(told["lists"][steps]) == len(told["lists"][loss]) == 112
    assert told["lists"][steps][0] == 5 and told["lists"][loss][0] == pytest.approx(3 - 2 * 4 / 999, rel=1e-3)
    # what is equal in both runs is kept once
    assert told["lines"][1][1] == steps and told["lines"][1][3] == rate and told["lines"][1][2] != loss


def test_a_training_table_that_cannot_be_read_is_said(tmp_path: Path, made: Made) -> None:
    folder = sweeps.save(sweeps.record(), tmp_path / "study", losses=[1.0])
    (folder / "training.parquet").write_bytes(b"torn")
    told = made(tmp_path / "study")["training"]
    assert told["lines"] == [] and "cannot be read" in told["gaps"][0]


def letters(told: dict[str, Any], place: int) -> dict[str, str | None]:
    """What dense, pruned and last model of a run answered."""
    answers = told["answers"]
    (found,) = (each for each in answers["sets"][0]["runs"] if each[0] == place)
    names = ("dense", "pruned", "final")
    return {
        name: None if number is None else answers["letters"][number]
        for name, number in zip(names, found[1:], strict=True)
    }


def evaluated_after_pruning(sweep: Path, settings: dict[str, Any], right: np.ndarray) -> str:
    """Write a run of prepare, evaluate, prune, evaluate, recover, evaluate."""
    made = sweeps.record(**settings)
    asked = sweeps.predictions(made)
    after = asked[asked["stage_index"] == 4].copy()
    after["predicted"] = np.where(right, after["gold"], (after["gold"] + 1) % sweeps.CHOICES)
    stages = list(made.stages)
    stages[4] = replace(stages[4], index=5)
    stages.insert(3, replace(stages[4], index=3, key="pruned"))
    stages[4] = replace(stages[4], index=4)
    rows = [replace(row, stage_index=5) if row.stage_index == 4 else row for row in made.rows]
    folder = sweeps.save(replace(made, stages=stages, rows=rows), sweep, with_predictions=False)
    last = asked.assign(stage_index=asked["stage_index"].replace({4: 5}))
    pandas.concat([last, after.assign(stage_index=3)]).to_parquet(folder / PREDICTIONS, index=False)
    return made.run_id


def test_what_the_pruned_model_answered_is_its_own_evaluation_else_that_of_the_run_without_recovery(
    tmp_path: Path, made: Made
) -> None:
    sweep, few = tmp_path / "study", {"questions": 5, "accuracy": 0.6}
    own = evaluated_after_pruning(sweep, {"loss": "kl", **few}, np.array([True, False, False, False, True]))
    for loss in ("none", "ce"):
        sweeps.save(sweeps.record(loss=loss, **few), sweep, right=np.array([False, True, False, True, loss == "ce"]))
    sweeps.save(sweeps.record(loss="ce", seed=1, **few), sweep)
    told = made(sweep)
    place = {name: number for number, name in enumerate(told["runs"]["id"])}
    asked = {(run.choice("loss"), run.seed): letters(told, place[run.record.run_id]) for run in collect([sweep]).runs}
    # gold is 0 to 4, a wrong answer the next choice; dense is right on all five
    assert asked["kl", 0] == {"dense": "01234", "pruned": "02344", "final": "01240"}
    assert own in place
    assert asked["none", 0] == {"dense": "01234", "pruned": "11330", "final": "11330"}
    assert asked["ce", 0] == {"dense": "01234", "pruned": "11330", "final": "11334"}
    assert asked["ce", 1]["pruned"] is None


def test_texts_of_questions_are_those_that_the_run_was_asked(tmp_path: Path, made: Made) -> None:
    sweep = tmp_path / "study"
    sweeps.save(pages.told(sweeps.record(questions=3)), sweep)
    assert any("is missing, so these questions are shown by their ids" in gap for gap in made(sweep)["answers"]["gaps"])
    pages.texts(sweep, ["q00000", "q00002"])
    told = made(sweep)["answers"]
    assert told["sets"][0]["ids"] == ["q00000", "q00001", "q00002"]
    assert [text and text[0] for text in told["sets"][0]["texts"]] == [pages.SCRIPT, None, "What is thing 1?"]
    assert told["gaps"] == ["1 of 3 questions have no text and are shown by their ids"]


@pytest.mark.parametrize("digest", ["../../secret", "secret", None])
def test_only_a_digest_names_a_file_of_questions(tmp_path: Path, made: Made, digest: object) -> None:
    run = sweeps.record(questions=3)
    stages = [replace(each, details={"questions": digest}) for each in run.stages]
    sweeps.save(replace(run, stages=stages), tmp_path / "deep" / "study")
    (tmp_path / "secret.parquet").write_bytes(b"")
    told = made(tmp_path / "deep" / "study")["answers"]
    assert told["gaps"] == ["1 runs do not tell the texts of their questions, which are shown by their ids"]


def test_more_answers_than_a_page_holds_are_cut_and_it_is_said(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps.save(pages.told(sweeps.record(questions=20)), tmp_path / "study")
    pages.texts(tmp_path / "study", [f"q{number:05}" for number in range(20)])
    monkeypatch.setattr(report.answers, "ANSWERS", 20)
    told = made(tmp_path / "study")["answers"]
    # the run's two models share ten answers each
    assert {len(each) for each in told["letters"]} == {10} and len(told["sets"][0]["ids"]) == 10
    assert "the first 10 of 20 questions are shown, so that the page stays small" in told["gaps"]
    monkeypatch.setattr(report.answers, "ANSWERS", 1000)
    monkeypatch.setattr(report.answers, "TEXT", 200)
    assert 0 < len(made(tmp_path / "study")["answers"]["sets"][0]["ids"]) < 10


def test_runs_that_did_not_finish_are_told_with_all_that_is_known(tmp_path: Path, made: Made) -> None:
    sweep = tmp_path / "study"
    sweeps.save(sweeps.record(seed=0), sweep)
    error = "out of memory\nTraceback: line 1\nline 2"
    failed = replace(sweeps.record(loss="ce", seed=1), status="failed", error=error, rows=[])
    sweeps.save(failed, sweep, with_predictions=False)
    (sweep / "stopped" / ".hydra").mkdir(parents=True)
    (sweep / "torn").mkdir()
    (sweep / "torn" / "record.json").write_text("{")
    told = made(sweep)
    assert dict(zip(told["runs"]["id"], told["runs"]["status"], strict=True)) == {
        collect([sweep]).runs[0].record.run_id: "finished",
        failed.run_id: "failed",
        "stopped": "unfinished",
        "torn": "unreadable",
    }
    assert told["failures"] == [{"run": failed.run_id, "first": "out of memory", "whole": error}]
    assert [kind for kind, _ in told["left_out"]] == ["unfinished", "unreadable"]
    loss = next(column for column in told["columns"] if column["key"] == "loss")
    assert [loss["values"][code] for code in loss["codes"]] == ["KL", "CE"]
    assert told["runs"]["recorded"] == 2 and told["runs"]["finished"] == 1


def test_environments_and_code_versions_are_counted(tmp_path: Path, made: Made) -> None:
    for seed, (commit, memory) in enumerate([("aaa", 1), ("aaa", 2), ("bbb+", 3)]):
        environment = {"commit": commit, "libraries": {"torch": "2.13.0"}, "peak_memory_bytes": memory}
        sweeps.save(replace(sweeps.record(seed=seed), environment=environment), tmp_path / "study")
    told = made(tmp_path / "study")
    assert told["commits"] == [["aaa", 2], ["bbb+", 1]]
    # memory differs from run to run and makes no other environment
    assert [(each["count"], dict(each["values"])["libraries.torch"]) for each in told["environments"]] == [
        (2, "2.13.0"),
        (1, "2.13.0"),
    ]


def test_configs_tell_what_is_common_once_and_what_differs(small: Path, made: Made) -> None:
    told = made(small)["configs"]
    common, differing = dict(told["common"]), {each["key"]: each for each in told["differing"]}
    assert common["model.layers"] == "4" and common["pruner/criterion (choice)"] == "l2"
    assert {"seed", "sparsity", "loss._target_", "loss (choice)"} <= set(differing) and "model.layers" not in differing
    assert differing["seed"]["values"] == ["0", "1"] and sorted(set(differing["seed"]["codes"])) == [0, 1]
    # what cannot change a result may name hosts and folders, and is no difference
    assert not [key for key in (*common, *differing) if key.startswith(("tracker", "runtime"))]


def test_several_sweeps_are_one_page_that_tells_them_apart(tmp_path: Path, made: Made) -> None:
    for name, seed in (("one", 0), ("two", 1)):
        sweeps.save(sweeps.record(seed=seed, sweep=name), tmp_path / name)
    told = made(tmp_path / "one", tmp_path / "two")
    assert told["title"] == "one and two"
    sweep = next(column for column in told["columns"] if column["key"] == "sweep")
    assert sweep["values"] == ["one", "two"] and sweep["codes"] == [0, 1]


def test_one_run_is_a_page(tmp_path: Path, made: Made) -> None:
    sweeps.save(sweeps.record(), tmp_path / "study")
    told = made(tmp_path / "study")
    assert told["runs"]["id"] and told["pairs"] == [] and told["training"]["lines"] == []
    assert told["charts"][0]["metrics"]["accuracy"]["means"]["over"] == ["questions"]
    assert told["landmarks"] == []


def test_a_checkpoint_that_was_measured_again_is_a_page(tmp_path: Path, made: Made) -> None:
    record = sweeps.record()
    loaded = [replace(stage, stage="load") if stage.stage == "prune" else stage for stage in record.stages]
    stages = [stage for stage in loaded if stage.stage != "recover"]
    sweeps.save(replace(record, stages=stages), tmp_path / "study")
    assert made(tmp_path / "study")["runs"]["id"]


def test_five_hundred_runs_make_a_page_that_is_not_too_large(many: Path) -> None:
    assert many.stat().st_size < 15e6
    told = pages.data(many)
    assert len(told["runs"]["id"]) == 500 and len(told["answers"]["sets"][0]["ids"]) == 480


def test_many_gaps_are_counted(tmp_path: Path, made: Made) -> None:
    for seed in range(30):
        sweeps.save(sweeps.record(seed=seed), tmp_path / "study", with_predictions=False)
    gaps = made(tmp_path / "study")["answers"]["gaps"]
    assert len(gaps) == 21 and gaps[-1] == "and 10 more like these"


def test_a_failure_alone_is_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed: Record = replace(sweeps.record(), status="failed", error="no", rows=[])
    sweeps.save(failed, tmp_path / "study", with_predictions=False)
    assert main(["report", str(tmp_path / "study")]) == 2
    assert "Nothing to analyse" in capsys.readouterr().err
    assert not (tmp_path / "study" / "report.html").exists()


def test_runs_that_cost_differently_have_a_page_with_their_cost_as_an_axis(tmp_path: Path, made: Made) -> None:
    for loss, flops in (("ce", 1e11), ("kl", 1.5e11)):
        for seed in (0, 1):
            costs = {"tokens": 1000, "flops": flops, "teacher_flops": 0.0}
            sweeps.save(sweeps.record(loss=loss, seed=seed, costs=costs), tmp_path / "study")
    told = made(tmp_path / "study")
    assert [view["swept"] for view in told["charts"]] == ["target", "recovery_flops"]
    (axis,) = told["charts"][1]["axes"]
    assert sorted(axis["values"]) == [1e11, 1e11, 1.5e11, 1.5e11]


def test_twenty_losses_have_a_page(tmp_path: Path, made: Made) -> None:
    """Each with labels and with no recovery: one line a pair tells what was found."""
    losses = ["none", "ce", "kl", *(f"loss_{letter}" for letter in "abcdefghijklmnopq")]
    for loss in losses:
        for seed in (0, 1):
            accuracy = 0.5 + 0.01 * len(loss) + 0.01 * seed * (loss != "none")
            sweeps.save(sweeps.record(loss=loss, seed=seed, accuracy=accuracy, questions=100), tmp_path / "many")
    told = made(tmp_path / "many")
    assert len(told["pairs"]) == 18 + 19
    assert [(each["a"], each["b"]) for each in told["pairs"][:2]] == [("KL", "CE"), ("loss-a", "CE")]
    assert all(each["finding"].startswith("Of 1 comparison: ") for each in told["pairs"])
    assert told["study"]["verdict"].startswith(("KL", "Nothing is claimed. KL"))
