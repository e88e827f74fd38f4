"""What is masked is zero after every optimizer step, and stands still in everything that a training counts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from architectures import tiny_model
from test_loop import questions

from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.interfaces import LanguageModel, PruningContext
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.criteria.l1 import L1
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.n_m import NM
from regraft.recovery.loop import Trainer
from regraft.recovery.progress import Progress
from regraft.recovery.training import Training

STEPS = 6
TRAINING = Training(batch_size=8, accumulation=2, learning_rate=1e-2, weight_decay=0.1, max_grad_norm=0.5, warmup=0.0)


def student(architecture: str = "olmo2", dtype: torch.dtype = torch.float32) -> LanguageModel:
    model = LanguageModel(model=tiny_model(architecture).to(dtype), tokenizer=None)  # type: ignore[arg-type]
    pruner = Pruner(criterion=L1(), structure=NM(), allocation=Layerwise())
    pruner.prune(model, pruner.left(model), 0.5, PruningContext(generator=torch.Generator()))
    return model


def trainer(model: LanguageModel, **more: object) -> Trainer:
    loss = CrossEntropy()
    return Trainer(model, questions(loss, TRAINING, STEPS), loss, TRAINING, STEPS, **more)  # type: ignore[arg-type]


def living(model: LanguageModel) -> dict[str, int]:
    parameters = dict(model.model.named_parameters())
    return {name: int((parameters[name] != 0).sum()) for name in model.masks}


@pytest.mark.parametrize("architecture", ["olmo2", "gpt2"])
def test_zeros_stay_and_the_rest_moves(architecture: str) -> None:
    model = student(architecture)
    before = {name: parameter.detach().clone() for name, parameter in model.model.named_parameters()}
    steps: list[int] = []
    norms: list[float] = []

    def norm(trained: torch.nn.Module, step: int) -> None:
        squares = 0.0
        for name, parameter in trained.named_parameters():
            assert parameter.grad is not None
            mask = model.masks.get(name)
            squares += float((parameter.grad if mask is None else parameter.grad * mask).double().square().sum())
        norms.append(math.sqrt(squares))

    def zero(trained: torch.nn.Module, step: int) -> None:
        parameters = dict(trained.named_parameters())
        assert all(not parameters[name][~mask].any() for name, mask in model.masks.items())
        steps.append(step)

    done = trainer(model, on_gradients=[norm], after_step=[zero])
    done.run()
    assert steps == list(range(1, STEPS + 1))
    assert [line["grad_norm"] for line in done.lines] == pytest.approx(norms, rel=1e-5)
    for name, parameter in model.model.named_parameters():
        mask = model.masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert not parameter[~mask].any(), name
        if name in model.masks:
            assert (parameter != before[name])[mask].all(), name


def test_what_others_write_into_masked_weights_goes() -> None:
    model = student()
    name = next(iter(model.masks))

    def spoil(trained: torch.nn.Module, step: int) -> None:
        trained.get_parameter(name).data += 1

    trainer(model, after_step=[spoil]).run()
    weight = model.model.get_parameter(name)
    assert torch.equal(weight != 0, model.masks[name])


def test_a_model_that_is_stored_in_bfloat16() -> None:
    model = student(dtype=torch.bfloat16)
    before = {name: int(mask.sum()) for name, mask in model.masks.items()}
    trainer(model).run()
    assert model.model.dtype == torch.bfloat16
    parameters = dict(model.model.named_parameters())
    for name, mask in model.masks.items():
        assert not parameters[name][~mask].any()
    assert all(before[name] >= number > 0.99 * before[name] for name, number in living(model).items())


def test_a_training_that_is_continued(tmp_path: Path) -> None:
    whole = student()
    trainer(whole).run()
    path = tmp_path / "key.safetensors"
    trainer(student(), progress=Progress(path, "key", 1)).run(until=3)
    again = student()
    trainer(again, progress=Progress(path, "key", 1)).run()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)
    assert living(again) == {name: int(mask.sum()) for name, mask in again.masks.items()}
