from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sweeps

from analysis import tables
from analysis.collect import AnalysisError, collect
from analysis.comparison import compare
from analysis.curves import points
from analysis.landmarks import landmarks
from analysis.values import values, write

SPARSITIES = (0.0, 0.5, 0.8, 0.9)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweeps.grid(tmp_path_factory.mktemp("values") / "study", sparsities=SPARSITIES, questions=200)


@pytest.fixture(scope="module")
def told(study: Path) -> dict[str, str]:
    found, _ = values(collect([study]))
    assert len(dict(found)) == len(found)
    return dict(found)


def runs(folder: Path, choices: Iterable[dict[str, str]], **more: Any) -> Path:
    for seed, loss, named in itertools.product((0, 1), ("ce", "kl"), choices):
        made = sweeps.record(seed=seed, loss=loss, **more)
        sweeps.save(
            replace(made, run_id=f"{made.run_id}{len(list(folder.glob('*')))}", choices=made.choices | named), folder
        )
    return folder


def test_counts(told: dict[str, str]) -> None:
    assert told["study/runs"] == "72"
    assert told["study/seeds"] == "3"
    assert told["study/questions"] == "200"


def test_questions_are_those_of_all_runs(tmp_path: Path) -> None:
    for questions in (100, 300):
        sweeps.save(sweeps.record(questions=questions, seed=questions), tmp_path)
    assert dict(values(collect([tmp_path]))[0])[f"{tmp_path.name}/questions"] == "100 to 300"


def test_numbers_are_those_of_the_table(study: Path, told: dict[str, str]) -> None:
    collection = collect([study])
    table = tables.of(collection, points(collection, x="target"))
    losses = {"none": "none", "CE": "ce", "KL": "kl"}
    checked = 0
    for line in table.body:
        criterion, loss, *cells = (cell.text for cell in line)
        for sparsity, text in zip(SPARSITIES, cells, strict=True):
            if criterion == "dense":
                assert told["study/accuracy/dense"] == text
                continue
            key = f"study/accuracy/{criterion.lower()}/{losses[loss]}/{100 * sparsity:g}"
            mean, _, half = text.removesuffix(tables.MARK).partition(" ± ")
            assert (told[key], told.get(f"{key}/half", "")) == (mean, half)
            assert float(told[f"{key}/low"]) <= float(mean) <= float(told[f"{key}/high"])
            checked += 1
    assert checked == 24


def test_landmarks_are_those_of_the_curves(study: Path, told: dict[str, str]) -> None:
    table, _ = landmarks(points(collect([study]), x="target"))
    for row in table.to_dict("records"):
        condition = f"{row['criterion']}/{row['loss']}"
        assert told[f"study/area/{condition}"] == f"{100 * row['area']:.1f}"
        assert told[f"study/cliff/{condition}/from"] == f"{100 * row['cliff_from']:g}"
        assert told[f"study/cliff/{condition}/to"] == f"{100 * row['cliff_to']:g}"
        # none by l2 is the same under all seeds
        has_interval = condition != "l2/none"
        assert (f"study/area/{condition}/low" in told) == has_interval
    assert "study/kept95/l2/kl" in told


def test_differences_are_those_of_compare(study: Path, told: dict[str, str]) -> None:
    for each in compare(collect([study]), "loss", "kl", "ce")[0]:
        key = f"study/difference/kl-ce/{each.criterion}/{100 * each.sparsity:g}"
        assert float(told[key]) == pytest.approx(100 * each.difference, abs=0.05)
        assert told[key].startswith(("+", "-")) or float(told[key]) == 0
        assert each.estimate is not None and each.adjusted is not None
        assert float(told[f"{key}/low"]) == pytest.approx(100 * each.estimate.low, abs=0.05)
        assert float(told[f"{key}/high"]) == pytest.approx(100 * each.estimate.high, abs=0.05)
        assert told[f"{key}/p"].startswith("p ")
        assert told[f"{key}/verdict"] == each.verdict
    assert not any(text == "-0.0" for text in told.values())
    # losses that were not run are not compared
    assert not any("pseudo" in key for key in told)


def test_one_seed_has_no_p(tmp_path: Path) -> None:
    found = values(collect([sweeps.grid(tmp_path / "one", sparsities=(0.5, 0.8), seeds=(0,), questions=100)]))[0]
    keys = dict(found)
    assert "one/difference/kl-ce/l2/50" in keys and "one/difference/kl-ce/l2/50/p" not in keys
    assert "nothing is claimed" in keys["one/difference/kl-ce/l2/50/verdict"]
    assert "one/area/l2/kl" in keys and "one/area/l2/kl/low" not in keys


def test_files(tmp_path: Path, study: Path) -> None:
    found, _ = values(collect([study]))
    tex, listed = write(found, tmp_path / "new")
    with listed.open(newline="", encoding="utf-8") as lines:
        assert [tuple(line) for line in csv.reader(lines)] == [("key", "value"), *found]
    written = tex.read_text(encoding="utf-8").splitlines()
    defined = [re.fullmatch(r"\\expandafter\\def\\csname regraft@(.+?)\\endcsname\{(.*)\}%", line) for line in written]
    pairs = [(each[1], each[2]) for each in defined if each]
    assert [key for key, _ in pairs] == [key for key, _ in found]
    assert [text for _, text in pairs] == [tables.latex(text) for _, text in found]
    verdict = next(text for key, text in pairs if key.endswith("verdict"))
    assert r"50 \% of" in "".join(text for _, text in pairs) and not re.search(r"(?<!\\)[%&#_]", verdict)


def test_keys_hold_nothing_that_csname_cannot(tmp_path: Path) -> None:
    odd = r"a_b&c%d#e$f~g^h\i{j} k"
    study = runs(tmp_path / odd, [{"pruner/criterion": odd, "task": odd}])
    keys = [key for key, _ in values(collect([study]))[0]]
    assert len(keys) > 10
    for key in keys:
        assert not set(key) & set("\\{}%#$~^& "), key
    assert "a_b-c-d-e-f-g-h-i-j--k/accuracy/a_b-c-d-e-f-g-h-i-j--k/kl/50" in keys


def test_the_sweep_is_named_also_where_it_is_the_working_folder(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study)
    assert values(collect([Path()]))[0][0] == ("study/runs", "72")


def test_two_values_never_have_one_key(tmp_path: Path) -> None:
    study = runs(tmp_path / "study", [{"pruner/criterion": "a b"}, {"pruner/criterion": "a-b"}])
    with pytest.raises(AnalysisError, match="accuracy/a-b/ce/50: two values would have this key.*--where"):
        values(collect([study]))


def test_each_dense_model_has_its_number(tmp_path: Path) -> None:
    for task, dense in (("facts", 0.9), ("sums", 0.8)):
        for seed in (0, 1):
            made = sweeps.record(seed=seed, lr=dense)
            rows = [replace(made.rows[0], value=dense), *made.rows[1:]]
            sweeps.save(replace(made, rows=rows, choices=made.choices | {"task": task}), tmp_path / "study")
    told = dict(values(collect([tmp_path / "study"]))[0])
    assert (told["study/accuracy/dense/facts"], told["study/accuracy/dense/sums"]) == ("90.0", "80.0")
    assert "study/accuracy/dense" not in told


def test_recovery_questions_are_the_points_where_they_were_varied(tmp_path: Path) -> None:
    for size, seed in itertools.product((100, 1_234_567), (0, 1)):
        made = sweeps.record(seed=seed, train_size=size, accuracy=0.5 + size / 1e7)
        row = replace(made.rows[0], split="recovery", n=size)
        sweeps.save(replace(made, rows=[*made.rows, row]), tmp_path / "study", with_predictions=False)
    told = dict(values(collect([tmp_path / "study"]))[0])
    assert told["study/accuracy/l2/kl/100"] == "50.0"
    assert told["study/accuracy/l2/kl/1234567"] == "62.5"


def test_what_is_not_told_is_said(tmp_path: Path) -> None:
    for seed, loss in itertools.product((0, 1), ("ce", "kl")):
        sweeps.save(sweeps.record(seed=seed, loss=loss), tmp_path / "study", with_predictions=False)
    found, gaps = values(collect([tmp_path / "study"]))
    told = "\n".join(gaps)
    assert "study/accuracy/l2/kl/50" in dict(found)
    assert "difference of kl and ce: not told: " in told and "is missing" in told
    assert "bytes: not told: No run has bytes" in told
    assert "area, kept and cliff: not told: " in told
    assert len(set(gaps)) == len(gaps)
