"""What saves memory trains the same, or says what it does not train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import VOCABULARY, tiny_model
from test_loop import questions, train
from torch.utils._python_dispatch import TorchDispatchMode

from regraft.distillation.losses.kl import KL
from regraft.distillation.teachers.answers import Live
from regraft.distillation.teachers.dense import Dense
from regraft.interfaces import LanguageModel, ModelOutputs, TeacherContext
from regraft.models.forward import forward
from regraft.recovery.adamw_8bit import AdamW8bit, values
from regraft.recovery.checkpointing import recomputing
from regraft.recovery.loop import Trainer
from regraft.recovery.lora import Lora
from regraft.recovery.progress import Progress
from regraft.recovery.training import Training

TRAINING = Training(batch_size=8, learning_rate=1e-2, warmup=0.0)


def bare(architecture: str, **shape: int) -> LanguageModel:
    return LanguageModel(model=tiny_model(architecture, **shape), tokenizer=None)  # type: ignore[arg-type]


def trainer(student: LanguageModel, training: Training, progress: Progress | None = None, steps: int = 4) -> Trainer:
    teacher = Live(tiny_model("olmo2" if student.model.config.model_type == "olmo2" else "gpt2", seed=1))
    return Trainer(student, questions(KL(), training, steps), KL(), training, steps, teacher=teacher, progress=progress)


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):  # type: ignore[no-untyped-def]
        self.count += function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("architecture", ["olmo2", "gpt2", "gemma3"])
def test_checkpointing_computes_again_and_changes_no_gradient(architecture: str) -> None:
    """Hidden states too, which are taken from between the layers."""
    model = tiny_model(architecture)
    ((batch, _),) = questions(KL(), TRAINING, 1).step(0, None)  # type: ignore[arg-type]
    gradients, products = [], []
    for again in (False, True):
        model.zero_grad()
        with recomputing(model) if again else torch.enable_grad():
            said = forward(model, batch, {"hidden_states"})
            loss = said.logits.square().mean() + sum(states.square().mean() for states in said.hidden_states)
            with Products() as counted:
                loss.backward()
        gradients.append({name: each.grad for name, each in model.named_parameters()})
        products.append(counted.count)
    plain, checkpointed = gradients
    assert all(torch.equal(gradient, checkpointed[name]) for name, gradient in plain.items())
    assert products[1] >= products[0] + 3 * 3  # three layers of four matrices and more; torch may spare the last one
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["weights", "lora"])
def test_a_training_with_checkpointing_is_the_same(lora: Lora | None) -> None:
    plain, one = train(replace(TRAINING, lora=lora))
    saving, other = train(replace(TRAINING, lora=lora, gradient_checkpointing=True))
    assert [line["loss"] for line in one] == [line["loss"] for line in other]
    theirs = saving.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in plain.model.state_dict().items())
    assert other[-1]["flops"] > 1.2 * one[-1]["flops"] and other[-1]["tokens"] == one[-1]["tokens"]


@pytest.mark.parametrize(
    ("architecture", "frozen", "still"),
    [
        ("olmo2", ("embeddings",), {"model.embed_tokens.weight"}),
        ("olmo2", ("head",), {"lm_head.weight"}),
        ("gpt2", ("embeddings",), {"transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"}),
        ("gpt2", ("head",), {"transformer.wte.weight", "lm_head.weight"}),
    ],
)
def test_what_is_frozen_stays_and_can_be_trained_again(
    architecture: str, frozen: tuple, still: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    student = bare(architecture)
    before = {name: tensor.clone() for name, tensor in student.model.state_dict().items()}
    training = trainer(student, replace(TRAINING, frozen=frozen))
    head = forward(training.model, next(iter(training.batches.step(0, student)))[0]).head
    assert head is not None and head.weight.requires_grad == (not still & {"lm_head.weight"})
    training.run()
    after = student.model.state_dict()
    assert {name for name, tensor in before.items() if torch.equal(tensor, after[name])} == still
    assert all(parameter.requires_grad for parameter in student.model.parameters())


def test_of_a_frozen_head_no_gradient_is_made() -> None:
    from regraft.distillation.vocabulary import summed

    model = tiny_model("gpt2").requires_grad_(False)
    states = torch.randn(5, 32, requires_grad=True)
    head = forward(model, next(iter(questions(KL(), TRAINING, 1).step(0, None)))[0]).head  # type: ignore[arg-type]
    seen = []

    class Outer(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):  # type: ignore[no-untyped-def]
            made = function(*arguments, **(named or {}))
            seen.append(tuple(made.shape) if isinstance(made, torch.Tensor) else ())
            return made

    with Outer():
        summed(ModelOutputs(states=states, head=head), lambda z, part: z.square().mean(dim=1)).backward()
    # the head itself is looked at, but nothing of its shape is filled or multiplied
    assert states.grad is not None and head is not None
    assert seen.count(tuple(head.weight.shape)) <= 1


def quantised(numbers: torch.Tensor, signed: bool) -> torch.Tensor:
    """Each number of a block by the nearest of the values, as the paper has it, one at a time."""
    table = values(signed).double()
    made = []
    for block in numbers.double().split(256):
        scale = block.abs().max()
        for number in block:
            nearest = int((number / scale - table).abs().argmin()) if scale > 0 else int(table.abs().argmin())
            made.append(table[max(nearest, 1) if not signed and number > 0 else nearest] * scale)
    return torch.stack(made)


def test_the_values_of_a_byte_are_the_papers() -> None:
    signed, unsigned = values(True), values(False)
    assert 0.0 in signed and 1.0 in signed and float(signed.min()) == pytest.approx(-0.9929688)
    assert unsigned[0] == 0 and unsigned[-1] == 1 and (unsigned.diff() > 0).all() and (signed.diff() > 0).all()
    # one exponent bit fewer: seven decades, of which the first has 1 (signed) or 2 (unsigned) fractions
    assert [int(((10.0**-e / 10 < signed) & (signed < 10.0**-e)).sum()) for e in range(7)] == [64, 32, 16, 8, 4, 2, 1]
    assert [int(((10.0**-e / 10 < unsigned) & (unsigned < 10.0**-e)).sum()) for e in range(7)] == [
        128,
        *(64, 32, 16, 8, 4, 2),
    ]


def test_moments_in_bytes_take_the_steps_of_the_formula() -> None:
    """AdamW in float64 whose moments are rounded to a byte after each step; a last block that is not full."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(41, 101, generator=generator))
    small = torch.nn.Parameter(torch.randn(10, generator=generator))
    optimizer = AdamW8bit([{"params": [weight, small], "weight_decay": 0.1}], lr=0.01, betas=(0.9, 0.95))
    w, m, v = weight.detach().double().flatten(), torch.zeros(4141).double(), torch.zeros(4141).double()
    for step in (1, 2, 3):
        gradient = torch.randn(41, 101, generator=generator) * torch.rand(41, 101, generator=generator) ** 6
        weight.grad, small.grad = gradient.clone(), torch.ones(10)
        optimizer.step()
        g = gradient.double().flatten()
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        update = (m / (1 - 0.9**step)) / ((v / (1 - 0.95**step)).sqrt() + 1e-8)
        w = w * (1 - 0.01 * 0.1) - 0.01 * update
        m, v = quantised(m, True), quantised(v, False)
        close = torch.isclose(weight.detach().double().flatten(), w, rtol=1e-5, atol=1e-6)
        assert close.double().mean() > 0.998  # rounding may fall to the other side of a middle
    state = optimizer.state[weight]
    assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.uint8 and state["exp_avg"].shape == weight.shape
    assert optimizer.state[small]["exp_avg"].dtype == torch.float32


@pytest.mark.parametrize("rows", [8, 64])
def test_with_8_bits_a_weight_that_lies_transposed_takes_the_same_steps(rows: int) -> None:
    """Of a few numbers, whose moments stay in float32, and of many."""
    gradients = torch.randn(3, rows, 96, generator=torch.Generator().manual_seed(1))
    began = torch.randn(rows, 96, generator=torch.Generator().manual_seed(0))
    found = []
    for weight in (began.clone(), began.T.contiguous().T):
        parameter = torch.nn.Parameter(weight)
        optimizer = AdamW8bit([{"params": [parameter], "weight_decay": 0.1}], lr=0.01, betas=(0.9, 0.95))
        for gradient in gradients:
            parameter.grad = gradient
            optimizer.step()
        found.append(parameter.detach())
    assert not found[1].is_contiguous()
    assert torch.equal(*found) and not torch.equal(found[0], began)


def test_forgotten_moments_are_zero() -> None:
    weight = torch.nn.Parameter(torch.randn(64, 64))
    optimizer = AdamW8bit([{"params": [weight]}], lr=0.01, betas=(0.9, 0.95))
    weight.grad = torch.randn(64, 64)
    optimizer.step()
    before, keep = weight.detach().clone(), torch.rand(64, 64) > 0.5
    optimizer.forget(weight, keep)
    weight.grad = torch.zeros(64, 64)
    optimizer.step()
    assert torch.equal(weight[~keep], before[~keep]) and not torch.equal(weight[keep], before[keep])


def wide() -> LanguageModel:
    """With matrices that are large enough for moments in bytes, and masks."""
    student = bare("olmo2", hidden_size=64, intermediate_size=72)
    for name in ("model.layers.0.mlp.up_proj.weight", "model.layers.2.self_attn.q_proj.weight"):
        weight = student.model.get_parameter(name)
        student.masks[name] = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) > 0.5
        weight.data.mul_(student.masks[name])
    return student


def test_with_8_bits_masks_hold_and_an_interrupted_training_ends_the_same(tmp_path: Path) -> None:
    training = replace(TRAINING, optimizer="adamw_8bit", weight_decay=0.1)
    whole = trainer(wide(), training)
    whole.run()
    path = tmp_path / "progress.safetensors"
    trainer(wide(), training, Progress(path, "key", 1)).run(until=2)
    again = trainer(wide(), training, Progress(path, "key", 1))
    torch.rand(7)
    again.run()
    assert again.lines == whole.lines and again.spent == whole.spent
    ends = whole.student.model.state_dict()
    assert all(torch.equal(tensor, ends[name]) for name, tensor in again.student.model.state_dict().items())
    for name, mask in whole.student.masks.items():
        assert not ends[name][~mask].any() and ends[name][mask].all()
    plain = trainer(wide(), replace(training, optimizer="adamw"))
    plain.run()
    assert any(state["exp_avg"].dtype == torch.uint8 for state in whole.optimizer.state.values())
    assert whole.lines[-1]["loss"] == pytest.approx(plain.lines[-1]["loss"], rel=0.05)
    assert whole.lines[-1]["loss"] != plain.lines[-1]["loss"]


class Words:
    def get_vocab(self) -> dict[str, int]:
        return {"last": VOCABULARY - 1}

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("architecture", ["olmo2", "gpt2"])
def test_a_teacher_in_bfloat16_takes_half_and_says_nearly_the_same(architecture: str) -> None:
    dense = LanguageModel(model=tiny_model(architecture), tokenizer=Words())  # type: ignore[arg-type]
    student = LanguageModel(model=tiny_model(architecture), tokenizer=Words())  # type: ignore[arg-type]
    context = TeacherContext(
        dense=lambda: dense,
        dense_key="",
        student=student,
        cache=None,  # type: ignore[arg-type]
        questions=lambda: (),
        questions_key="",
        autocast=torch.enable_grad,
        report=lambda told: None,
    )
    ((batch, _),) = questions(KL(), TRAINING, 1).step(0, None)  # type: ignore[arg-type]
    exact = Dense().build(context)(batch).logits
    teacher = Dense(precision="bfloat16").build(context)
    rounded = teacher(batch).logits.float()
    assert all(each.dtype == torch.bfloat16 for each in dense.model.parameters())
    assert all(each.dtype == torch.float32 for each in dense.model.buffers() if each.is_floating_point())
    assert 0 < float((rounded - exact).abs().max()) < 0.05 * float(exact.abs().max())
    said = forward(student.model, batch)
    value = KL()(batch, said, teacher(batch))
    assert 0 < float(value.total.detach()) / value.count < 1e-2
