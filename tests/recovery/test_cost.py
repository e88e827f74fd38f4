"""Tokens and FLOPs, against what torch counts, and budgets of them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import tiny_model
from test_loop import QUESTIONS
from torch.utils.flop_counter import FlopCounterMode

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.distillation.teachers.answers import Live
from regraft.distillation.teachers.dense import Dense
from regraft.distillation.teachers.several import Several, _Together
from regraft.interfaces import EncodedQuestion, LanguageModel
from regraft.models.cost import Cost, Extent, Ledger, attended, counted
from regraft.models.forward import forward
from regraft.recovery.batches import Questions
from regraft.recovery.budget import affordable
from regraft.recovery.checkpointing import recomputing
from regraft.recovery.loop import Trainer
from regraft.recovery.lora import Lora
from regraft.recovery.progress import Progress
from regraft.recovery.trained import restrict
from regraft.recovery.training import Training
from regraft.tasks.packing import pack

EVEN = [EncodedQuestion(id=str(n), context=tuple(range(3, 12)), choices=((4, 5),), answer=0) for n in range(4)]
"""Rows of one length: no padding."""


@pytest.mark.parametrize("architecture", ["llama", "olmo2", "gemma3"])
@pytest.mark.parametrize(
    "training",
    [
        Training(),
        Training(gradient_checkpointing=True),
        Training(frozen=("head",)),
        Training(lora=Lora(rank=3)),
    ],
    ids=["weights", "checkpointing", "head", "lora"],
)
def test_the_formula_counts_what_torch_counts(architecture: str, training: Training) -> None:
    """With eager attention, since torch counts none of the other kind on a CPU; it knows no mask, so all pairs count.

    Torch spares two things: what no gradient needs (behind the first trained adapter), and of what is computed again
    whatever comes after the last activation that is wanted (a layer's last matrix, if no norm follows).
    """
    model = tiny_model(architecture, num_attention_heads=4)
    model.set_attn_implementation("eager")
    pair = attended(model)
    restrict(LanguageModel(model=model, tokenizer=None), training)  # type: ignore[arg-type]
    batch = pack(EVEN, reads="gold", positions="all", pad_token_id=0, labelled=True)
    cost, extent = Cost.of(model, pair), Extent.of(batch)
    rows, seq = batch.input_ids.shape
    assert extent.pairs == rows * seq * (seq + 1) // 2 and extent.positions == rows * seq
    extent = replace(extent, pairs=rows * seq * seq)
    again = recomputing(model) if training.gradient_checkpointing else nullcontext()
    with FlopCounterMode(display=False) as said, again:
        forward(model, batch).logits.square().sum().backward()
    computed = cost.training(extent, recomputes=training.gradient_checkpointing)
    spared = training.lora is not None or (training.gradient_checkpointing and architecture == "llama")
    tolerance = 0.05 if spared else 0.01
    assert computed == pytest.approx(said.get_total_flops(), rel=tolerance)
    with FlopCounterMode(display=False) as said, torch.no_grad():
        assert len(forward(model, batch).logits)
    assert cost.forward(extent) == pytest.approx(said.get_total_flops(), rel=0.01)


def test_padding_and_hidden_pairs_count_for_nothing() -> None:
    """By hand: a question of 3 and one of 5 tokens, whose two choices (of 2 and 3) do not see each other."""
    encoded = [
        EncodedQuestion(id="a", context=(1, 2, 3), choices=((4, 5), (6, 7, 8))),
        EncodedQuestion(id="b", context=(1, 2, 3, 4, 5), choices=((4, 5), (6, 7, 8))),
    ]
    extent = Extent.of(pack(encoded, reads="choices", positions="answer", pad_token_id=0, labelled=False))
    # inside: the question's triangle; each token of a choice sees the question and those of its choice up to itself
    pairs = (6 + 4 + (4 + 5)) + (15 + 6 + (6 + 7))
    assert extent == Extent(positions=6 + 8, pairs=pairs, reads=2 * (1 + 1 + 2))


def training_run(
    training: Training, loss: object, *, teacher: bool, path: Path | None = None, steps: int = 6
) -> Trainer:
    student = LanguageModel(model=tiny_model("olmo2"), tokenizer=None)  # type: ignore[arg-type]
    progress = None if path is None else Progress(path, "key", 1)
    answers = Live(tiny_model("olmo2", seed=1)) if teacher else None
    return Trainer(
        student,
        source(training, loss, steps),
        loss,
        training,
        steps,
        teacher=answers,
        progress=progress,  # type: ignore[arg-type]
    )


def source(training: Training, loss: object, steps: int) -> Questions:
    return Questions(
        encoded=QUESTIONS,
        loss=loss,  # type: ignore[arg-type]
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        pad_token_id=0,
        seed=0,
        first=0,
        steps=steps,
    )


def test_a_training_counts_student_and_teacher_and_goes_on_counting(tmp_path: Path) -> None:
    training = Training(batch_size=8, accumulation=2)
    whole = training_run(training, KL(), teacher=True)
    whole.run()
    cost, tokens, student, teacher = Cost.of(tiny_model("olmo2")), 0, 0, 0
    for number in range(6):
        for batch, _ in source(training, KL(), 6).step(number, None):  # type: ignore[arg-type]
            extent = Extent.of(batch)
            tokens += extent.positions
            student += 3 * cost.forward(extent)
            teacher += cost.forward(extent)
    spent = whole.spent
    assert (spent.tokens, spent.teacher_tokens) == (tokens, tokens)
    assert (spent.flops, spent.teacher_flops) == (student, teacher)
    assert whole.lines[-1]["tokens"] == tokens and whole.lines[-1]["flops"] == student + teacher
    path = tmp_path / "key.safetensors"
    training_run(training, KL(), teacher=True, path=path).run(until=2)
    again = training_run(training, KL(), teacher=True, path=path)
    again.run()
    assert again.spent == spent


@pytest.mark.parametrize(("loss", "teacher"), [(CrossEntropy(), False), (KL(), True)])
@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["weights", "lora"])
@pytest.mark.parametrize("key", ["tokens", "flops"])
def test_a_budget_pays_for_as_many_steps_as_stay_within_it(
    key: str, lora: Lora | None, loss: object, teacher: bool
) -> None:
    whole = training_run(Training(batch_size=8, lora=lora), loss, teacher=teacher, steps=9)
    whole.run()
    spent = [line[key] for line in whole.lines]
    for budget, steps in ((spent[-2], 8), ((spent[3] + spent[4]) / 2, 4), (spent[0], 1)):
        limit = {key: int(budget) + (key == "flops")}
        training = Training(batch_size=8, lora=lora, **limit)
        student = LanguageModel(model=tiny_model("olmo2"), tokenizer=None)  # type: ignore[arg-type]
        found = affordable(
            student,
            training,
            lambda number: source(Training(batch_size=8), loss, number),
            epoch=3,
            teacher=Live(tiny_model("olmo2", seed=1)) if teacher else None,
            autocast=nullcontext,
            before=0,
        )
        assert found == steps
        before = tiny_model("olmo2").state_dict()
        assert all(torch.equal(tensor, before[name]) for name, tensor in student.model.state_dict().items())


def test_what_was_spent_before_is_part_of_the_budget_and_too_little_is_refused() -> None:
    student = LanguageModel(model=tiny_model("olmo2"), tokenizer=None)  # type: ignore[arg-type]

    def steps(flops: float, before: int) -> int:
        made = lambda number: source(Training(batch_size=8), KL(), number)  # noqa: E731
        training = Training(batch_size=8, flops=flops)
        return affordable(student, training, made, 3, teacher=None, autocast=nullcontext, before=before)

    ledger = Ledger()
    with counted(ledger):
        for batch, _ in source(Training(batch_size=8), KL(), 1).step(0, student):
            forward(student.model, batch)
    step = ledger.flops
    assert steps(5.5 * step, 0) == 5 and steps(5.5 * step, 2 * step) == 3
    with pytest.raises(ConfigError, match=r"recovery\.flops=.*must be at least"):
        steps(1.5 * step, step)


def test_a_budget_counts_the_teachers_that_each_batch_asks() -> None:
    """Of two tasks that come after each other, the second one with a larger teacher."""
    sizes = {"a": 16, "b": 256}
    live = {name: Live(tiny_model("olmo2", seed=1, intermediate_size=size)) for name, size in sizes.items()}
    several = Several(teachers=dict.fromkeys(sizes, Dense()), weighting="by_task")
    tasks = [
        replace(question, id=f"{'ab'[number // 4]}:{question.id}") for number, question in enumerate(QUESTIONS[:8])
    ]
    training = Training(batch_size=4)

    def made(steps: int) -> Questions:
        found = replace(source(training, KL(), steps), encoded=tasks)
        object.__setattr__(found, "order", [list(range(4 * (n % 2), 4 * (n % 2) + 4)) for n in range(steps)])
        return found

    student = LanguageModel(model=tiny_model("olmo2"), tokenizer=None)  # type: ignore[arg-type]
    trainer = Trainer(student, made(4), KL(), training, 4, teacher=_Together(several, live))
    trainer.run()
    spent = [line["flops"] for line in trainer.lines]
    for steps in (1, 2, 3):
        for budget, found in ((spent[steps - 1], steps), (spent[steps] - 1, steps)):
            limited = replace(training, flops=budget)
            student = LanguageModel(model=tiny_model("olmo2"), tokenizer=None)  # type: ignore[arg-type]
            answers = _Together(several, live)
            assert affordable(student, limited, made, 2, teacher=answers, autocast=nullcontext, before=0) == found


def test_one_thing_ends_a_training() -> None:
    with pytest.raises(ConfigError, match="steps=3: must be null beside tokens=100"):
        Training(steps=3, tokens=100)
    with pytest.raises(ConfigError, match="flops=0"):
        Training(flops=0)
