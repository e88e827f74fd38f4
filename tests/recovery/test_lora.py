"""Low-rank adapters: only they are trained, what is masked stays zero, and merging changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, VOCABULARY, tiny_model
from cutting import cut_model
from safetensors.torch import load_file
from test_loop import questions
from transformers import PreTrainedModel

from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.interfaces import LanguageModel
from regraft.models.forward import forward
from regraft.recovery.loop import Trainer
from regraft.recovery.lora import Lora
from regraft.recovery.progress import Progress
from regraft.recovery.training import Training

TRAINING = Training(batch_size=8, learning_rate=2e-2, warmup=0.0, lora=Lora(rank=3))
TOKENS = torch.arange(3, 51).remainder(VOCABULARY).view(2, 24)
STEPS = 5


def trainer(student: LanguageModel, progress: Progress | None = None, training: Training = TRAINING) -> Trainer:
    torch.manual_seed(0)
    batches = questions(CrossEntropy(), training, STEPS)
    return Trainer(student, batches, CrossEntropy(), training, STEPS, progress=progress)


def masked(architecture: str) -> LanguageModel:
    """Every other weight of every matrix in the layers is gone."""
    model = tiny_model(architecture)
    masks = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and any(part.isdigit() for part in name.split(".")):
            masks[name] = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)) < 0.5
            parameter.data.mul_(masks[name])
    return LanguageModel(model=model, tokenizer=None, masks=masks)  # type: ignore[arg-type]


def bare(model: PreTrainedModel) -> LanguageModel:
    return LanguageModel(model=model, tokenizer=None)  # type: ignore[arg-type]


@torch.no_grad()
def logits(model: LanguageModel) -> torch.Tensor:
    return model.model(input_ids=TOKENS).logits


def weights(model: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merged_it_says_what_was_trained_and_what_was_masked_is_zero(architecture: str) -> None:
    student = masked(architecture)
    dense, names = weights(student), [name for name, _ in student.model.named_parameters()]
    training = trainer(student)
    training.run(until=STEPS - 1)
    trained = logits(student)
    training._give_back()
    torch.testing.assert_close(logits(student), trained, atol=1e-5, rtol=0)
    assert [name for name, _ in student.model.named_parameters()] == names
    assert all(parameter.requires_grad for parameter in student.model.parameters())
    assert not hasattr(student.model, "peft_config")
    for name, tensor in weights(student).items():
        if name in student.masks:
            mask = student.masks[name]
            assert not tensor[~mask].any(), name
            assert (tensor != dense[name])[mask].float().mean() > 0.9, name
        else:
            assert torch.equal(tensor, dense[name]), name


def test_a_mask_is_held_while_it_trains_and_not_only_at_the_end() -> None:
    """The same steps without masks end elsewhere, and removing what was masked afterwards is another function."""
    student, free = masked("olmo2"), masked("olmo2")
    free.masks = {}
    one, other = trainer(student), trainer(free)
    one.run()
    other.run()
    assert one.lines[0]["loss"] == pytest.approx(other.lines[0]["loss"])
    assert one.lines[-1]["loss"] != pytest.approx(other.lines[-1]["loss"], rel=1e-4)


def test_layers_of_different_widths_and_chosen_blocks() -> None:
    student = bare(cut_model("llama", neurons=(19, 7, 30), groups=(2, 1, 2)))
    dense = weights(student)
    lora = Lora(rank=2, targets=("mlp",))
    training = trainer(student, training=Training(batch_size=8, learning_rate=2e-2, warmup=0.0, lora=lora))
    assert sum(p.numel() for p in training.model.parameters() if p.requires_grad) == sum(
        3 * 2 * (32 + units) for units in (19, 7, 30)
    )
    training.run()
    assert training.lines[-1]["loss"] < training.lines[0]["loss"]
    moved = {name for name, tensor in weights(student).items() if not torch.equal(tensor, dense[name])}
    assert moved == {name for name in dense if ".mlp." in name}


def test_with_full_rank_its_gradient_is_that_of_the_weights() -> None:
    """At the start B = 0: so dL/dB = s dL/dW A^T, whatever W."""
    student, plain = bare(tiny_model("qwen3")), bare(tiny_model("qwen3"))
    name = "model.layers.1.mlp.down_proj"
    one, other = trainer(student), trainer(plain, training=Training(batch_size=8))
    for each in (one, other):
        each.model.eval()
        ((batch, _),) = each.batches.step(0, each.student)
        CrossEntropy()(batch, forward(each.model, batch), None).total.backward()
    adapted = student.model.get_submodule(name)
    gradient = plain.model.get_submodule(name).weight.grad
    expected = TRAINING.lora.alpha / 3 * gradient @ adapted.lora_A["default"].weight.T
    torch.testing.assert_close(adapted.lora_B["default"].weight.grad, expected, rtol=1e-4, atol=1e-7)
    assert gradient.abs().max() > 1e-3


def test_interrupted_it_ends_the_same_and_keeps_the_adapters_only(tmp_path: Path) -> None:
    whole = trainer(masked("gpt2"))
    whole.run()
    path = tmp_path / "progress.safetensors"
    first = trainer(masked("gpt2"), Progress(path, "key", 1))
    first.run(until=3)
    kept = load_file(path)
    assert all("lora_" in name for name in kept if name.startswith("model."))
    assert sum(tensor.numel() for tensor in kept.values()) < 4 * first.student.model.num_parameters()
    second = trainer(masked("gpt2"), Progress(path, "key", 1))
    torch.rand(7)
    second.run()
    assert second.lines == whole.lines
    assert all(torch.equal(tensor, weights(second.student)[name]) for name, tensor in weights(whole.student).items())
    # the last state is kept too: what follows the training does not train again
    third = trainer(masked("gpt2"), Progress(path, "key", 1))
    third.run()
    assert torch.equal(logits(third.student), logits(whole.student))


def test_rewinding_continues_as_if_nothing_had_been() -> None:
    training = trainer(masked("olmo2"))
    training.run(until=2)
    state = training.state()
    training.run(until=4)
    training.restore(state)
    training.run()
    losses = [line["loss"] for line in training.lines]
    assert losses[2:4] == losses[4:6] and len(losses) == 7


def test_weights_come_back_in_their_own_dtype_with_zeros() -> None:
    student = masked("llama")
    student.model.to(torch.bfloat16)
    trainer(student).run()
    assert student.model.dtype == torch.bfloat16
    assert not any(student.model.get_parameter(name)[~mask].any() for name, mask in student.masks.items())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"rank": 0}, "rank=0"), ({"alpha": -1.0}, "alpha=-1"), ({"targets": ()}, "targets=")],
)
def test_ranges(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lora(**wrong)
