"""Prompt-level distillation: which text is chosen, who is asked behind it, and what is not done again."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from combinations import composed
from pyarrow.parquet import read_table

from regraft.config.ranges import ConfigError, Incompatible
from regraft.config.schema import RunConfig, load
from regraft.interfaces import LanguageModel
from regraft.records import CHECKPOINT, PREDICTIONS, Record, StageRecord
from regraft.run import STAGES, run
from regraft.stages import instruct
from regraft.stages.plan import plan

PLD = ("pipeline=prompt_distillation", "loss=none")
FAR = ("pruner/structure=layers", "sparsity=0.5", "seed=0")
"""A student so far from its teacher that some text brings it nearer."""
QUESTIONS = 6


def config(cache: Path, *overrides: str) -> RunConfig:
    own = ("candidates=3", "examples=2", f"questions={QUESTIONS}")
    made = load(composed(*PLD, *(f"pipeline.instructions.{one}" for one in own), *overrides))
    return replace(made, runtime=replace(made.runtime, cache=str(cache)))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def walked(made: RunConfig, folder: Path) -> Record:
    folder.mkdir()
    record = run(made, folder, {"seed": made.seed}, {}, "instructed")
    assert record.status == "finished", record.error
    return record


def instructed(record: Record) -> StageRecord:
    (stage,) = [stage for stage in record.stages if stage.stage == "instruct"]
    return stage


def log_likelihoods(model: LanguageModel, before: str, choices: tuple[str, ...]) -> list[float]:
    """Of each choice behind a text, read on its own, token by token."""
    found = []
    for choice in choices:
        start, tokens = (list(model.tokenizer(text)["input_ids"]) for text in (before, before + choice))
        with torch.no_grad():
            log_p = model.model(torch.tensor([tokens])).logits[0].double().log_softmax(dim=-1)
        found.append(sum(log_p[at - 1, tokens[at]].item() for at in range(len(start), len(tokens))))
    return found


def softmax(scores: list[float]) -> list[float]:
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


@pytest.mark.parametrize("form", ["examples", "instructions"])
def test_the_text_with_the_lowest_kl_is_chosen_and_stands_before_what_is_asked(
    form: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def watched(stage, model, context):
        outcome = instruct.run(stage, model, context)
        seen.update(student=model, teacher=context.dense.read(), context=context)
        return outcome

    monkeypatch.setitem(STAGES, "instruct", watched)
    made = config(shared, f"pipeline.instructions.form={form}", *FAR)
    record = walked(made, tmp_path / "run")
    details, task = instructed(record).details, made.task
    student, teacher, context = seen["student"], seen["teacher"], seen["context"]
    tried = details["candidates"]
    assert tried[0]["text"] == "" and len({each["text"] for each in tried}) == len(tried) == 4
    asked = [task.prompt(question) for question in context.splits.recovery[:QUESTIONS]]
    for each in tried:
        kl = 0.0
        for before, choices in asked:
            p = softmax(log_likelihoods(teacher, before, choices))
            q = softmax(log_likelihoods(student, each["text"] + before, choices))
            kl += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / len(asked)
        assert each["kl"] == pytest.approx(kl, rel=1e-3, abs=1e-7)
    assert details["prompt"] == min(tried, key=lambda each: each["kl"])["text"] == student.prompt != ""
    assert teacher.prompt == ""
    lines = [line for line in read_table(tmp_path / "run" / PREDICTIONS).to_pylist() if line["split"] == "test"]
    for stage, model, prompt in ((1, teacher, ""), (3, student, ""), (5, student, student.prompt)):
        said = [line["scores"] for line in lines if line["stage_index"] == stage]
        for scores, question in zip(said, context.labelled("test"), strict=True):
            before, choices = task.prompt(question)
            assert scores == pytest.approx(log_likelihoods(model, prompt + before, choices), rel=1e-4)
    if form == "examples":
        solved = {}
        for question in context.splits.preparation:
            before, choices = task.prompt(question)
            scores = log_likelihoods(teacher, before, choices)
            solved[before + choices[scores.index(max(scores))]] = question.id
        for each in tried[1:]:
            shown = each["text"].removesuffix("\n\n").split("\n\n")
            assert len(shown) == len(set(shown)) == 2 and set(shown) <= set(solved)


def test_no_text_comes_before_what_only_hurts(shared: Path, tmp_path: Path) -> None:
    """The student is its teacher, so any text takes it away."""
    record = walked(config(shared, "sparsity=0"), tmp_path / "run")
    details = instructed(record).details
    assert details["prompt"] == "" and details["candidates"][0]["kl"] == 0 < details["candidates"][1]["kl"]
    assert len({row.value for row in record.rows if (row.metric, row.split) == ("nll", "test")}) == 1


def test_what_was_found_is_not_looked_for_again(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = (*FAR, "task.train_size=16", "save_model=true")
    first = walked(config(shared, *given), tmp_path / "first")
    assert not instructed(first).reused and instructed(first).details["prompt"]
    monkeypatch.setattr(instruct, "_search", None)
    again = walked(config(shared, *given), tmp_path / "again")
    assert all(stage.reused for stage in again.stages)
    # what is measured otherwise needs the model, not the search
    other = walked(config(shared, *given, "evaluation.questions=3"), tmp_path / "other")
    assert instructed(other).reused and not other.stages[-1].reused
    scores = [
        [line["scores"] for line in read_table(folder / PREDICTIONS).to_pylist() if line["stage_index"] == 5][:3]
        for folder in (tmp_path / "first", tmp_path / "other")
    ]
    assert scores[1] == [pytest.approx(each, rel=1e-4) for each in scores[0]]
    prompt = instructed(first).details["prompt"]
    assert prompt not in "".join(path.read_text() for path in (tmp_path / "first" / CHECKPOINT).glob("*.json"))


def test_what_moves_its_key(shared: Path) -> None:
    made = config(shared)
    instructions = made.pipeline.instructions
    assert instructions is not None

    def key(**changes: Any) -> str:
        return plan(replace(made, **changes))[-2].key

    def measured(**changes: Any) -> str:
        return key(evaluation=replace(made.evaluation, **changes))

    assert {measured(questions=2), measured(splits=("selection",)), measured(latency=True)} == {key()}
    moved = {
        key(),
        key(seed=1),
        key(sparsity=0.6),
        key(pipeline=replace(made.pipeline, instructions=replace(instructions, examples=3))),
        key(task=replace(made.task, train_size=8)),
        key(task=replace(made.task, preparation_size=8)),
        measured(normalisation="character"),
    }
    assert len(moved) == 7


def test_after_a_recovery_too(shared: Path, tmp_path: Path) -> None:
    made = config(shared, "loss=kl", "pipeline.repeat=[prune,recover,evaluate]")
    assert [stage.stage for stage in walked(made, tmp_path / "run").stages][2:] == [
        *("prune", "recover", "evaluate", "instruct", "evaluate")
    ]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["loss=kl"], "loss=KL trains, and the pipeline has no recover.*Choose loss=none"),
        (["pipeline.after=[instruct,initialise,recover,evaluate]"], "nothing but evaluate behind instruct"),
        (["pipeline.repeat=[prune,instruct,evaluate]"], "repeat.*without prepare and instruct"),
        (["+pipeline.times=2"], "times=2.*1 for a pipeline that instructs"),
        (["pipeline.instructions=null"], "given with instruct in after"),
        (["pipeline.after=[evaluate]"], "given with instruct in after"),
        (["pipeline.instructions.examples=0"], "at least 1 with form=examples"),
    ],
)
def test_what_makes_no_sense_is_refused(shared: Path, overrides: list[str], told: str) -> None:
    with pytest.raises((ConfigError, Incompatible), match=told):
        config(shared, *overrides)


@pytest.mark.parametrize(
    ("form", "override", "told"),
    [
        ("examples", "examples=99", r"pipeline\.instructions\.examples=99: must be at most \d+.*preparation_size"),
        ("examples", "examples=16", r"behind a prompt of \d+, the model takes \d+\. Lower pipeline\.instructions"),
        ("instructions", "+tokens=999", r"pipeline\.instructions\.tokens=999: must be at most \d+"),
    ],
)
def test_what_is_too_long_is_told(form: str, override: str, told: str, shared: Path, tmp_path: Path) -> None:
    added = "+" if override.startswith("+") else ""
    given = f"{added}pipeline.instructions.{override.removeprefix('+')}"
    made = config(shared, f"pipeline.instructions.form={form}", given)
    (tmp_path / "run").mkdir()
    record = run(made, tmp_path / "run", {}, {}, "instructed")
    assert record.status == "failed" and re.search(told, str(record.error)), record.error
