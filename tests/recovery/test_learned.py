"""What a loss learns besides the student, and what it does not reach, in the training loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import tiny_model
from test_loop import questions

from regraft.distillation.losses.exits import Exits
from regraft.distillation.losses.hints import Hints
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.weighted_sum import WeightedSum
from regraft.distillation.teachers.answers import Live
from regraft.interfaces import LanguageModel, Loss
from regraft.models.forward import forward
from regraft.recovery.loop import LEARNED, Trainer, TrainingDiverged
from regraft.recovery.processes import Processes
from regraft.recovery.progress import Progress
from regraft.recovery.training import Training

STEPS = 6
TRAINING = Training(batch_size=8, learning_rate=1e-2, warmup=0.0, weight_decay=0.1, precision="float32")
LOSS = WeightedSum(terms={"kl": KL(), "hints": Hints(projection="learned", layers=1)})


def trainer(loss: Loss, path: Path | None = None) -> Trainer:
    student = LanguageModel(model=tiny_model("llama", layers=2), tokenizer=None)  # type: ignore[arg-type]
    teacher = tiny_model("llama", seed=1, hidden_size=16)  # narrower, and deeper
    progress = None if path is None else Progress(path, "key", 1)
    batches = questions(loss, TRAINING, STEPS)
    return Trainer(student, batches, loss, TRAINING, STEPS, teacher=Live(teacher, loss.needs), progress=progress)


def learned(done: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in done.state().model.items() if name.startswith(LEARNED)}


def test_a_projection_is_trained_beside_the_student_and_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = trainer(LOSS)
    before = learned(whole)
    assert {name: tuple(tensor.shape) for name, tensor in before.items()} == {
        f"{LEARNED}hints.0.weight": (16, 32),
        f"{LEARNED}hints.0.bias": (16,),
    }
    whole.run()
    assert whole.lines[-1]["loss"] < whole.lines[0]["loss"]
    assert all(not torch.equal(tensor, before[name]) for name, tensor in learned(whole).items())

    path = tmp_path / "progress" / "key.safetensors"
    trainer(LOSS, path).run(until=3)
    torch.rand(5)
    second = trainer(LOSS, path)
    second.run()
    assert second.lines == whole.lines
    assert all(torch.equal(tensor, learned(second)[name]) for name, tensor in learned(whole).items())


def test_what_a_loss_learns_is_clipped_and_looked_at_with_the_student() -> None:
    """One gradient: the norm is that of both, and a projection that is no number ends the training."""
    norms: list[float] = []

    def look(model: torch.nn.Module, step: int) -> None:
        norms.append(float(torch.stack([one.grad.norm() for one in model.parameters()]).norm()))  # type: ignore[union-attr]

    student = LanguageModel(model=tiny_model("llama", layers=2), tokenizer=None)  # type: ignore[arg-type]
    teacher = Live(tiny_model("llama", seed=1, hidden_size=16), LOSS.needs)
    going = Trainer(student, questions(LOSS, TRAINING, 2), LOSS, TRAINING, 2, teacher=teacher, on_gradients=[look])
    going.run(until=1)
    assert going.lines[0]["grad_norm"] > 1.0001 * norms[0]
    (weight, *_) = going._learned.parameters()  # type: ignore[union-attr]
    weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(TrainingDiverged, match="gradient norm=nan"):
        going.run()


def test_every_trained_parameter_gets_a_gradient_that_processes_can_wait_for() -> None:
    """Of losses that reach few of them; DDP fails at the second step otherwise."""
    together = Processes(torch.device("cpu"))
    together.count = 2
    model = tiny_model("llama", layers=2)
    frozen = next(model.parameters()).requires_grad_(False)
    ((batch, _),) = questions(Exits(layers=(1,)), TRAINING, 1).step(0, None)  # type: ignore[arg-type]
    said = forward(model, batch, Exits().needs)
    total = Exits(layers=(1,))(batch, said, None).total
    reaching = together.reaching(total, model)
    assert torch.equal(reaching, total)
    reaching.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (parameter is frozen), name
        assert parameter.grad is None or (float(parameter.grad.abs().max()) == 0) == ("layers.1" in name), name


def test_what_a_loss_does_not_reach_has_a_gradient_of_zero() -> None:
    seen: dict[str, float] = {}

    def look(model: torch.nn.Module, step: int) -> None:
        seen.update((name, float(one.grad.abs().max())) for name, one in model.named_parameters())  # type: ignore[union-attr]

    student = LanguageModel(model=tiny_model("llama", layers=2), tokenizer=None)  # type: ignore[arg-type]
    loss = Exits(layers=(1,))
    Trainer(student, questions(loss, TRAINING, 1), loss, TRAINING, 1, on_gradients=[look]).run()
    assert all((value == 0) == ("layers.1" in name) for name, value in seen.items()), seen
