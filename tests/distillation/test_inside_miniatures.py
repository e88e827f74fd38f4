"""What the papers found, in small: a model of some ten thousand parameters that learns answers by heart."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from architectures import tiny_model

from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.exits import Exits
from regraft.distillation.losses.hints import Hints
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.weighted_sum import WeightedSum
from regraft.distillation.teachers.answers import Live
from regraft.interfaces import EncodedQuestion, LanguageModel, Loss, PruningContext
from regraft.models.forward import forward
from regraft.models.initialise import initialise
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.criteria.alternate import Alternate
from regraft.pruning.criteria.random import Random
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.layers import Layers
from regraft.pruning.structures.mlp_neurons import MlpNeurons
from regraft.recovery.batches import Questions
from regraft.recovery.loop import Trainer
from regraft.recovery.training import Training
from regraft.tasks.packing import pack

pytestmark = pytest.mark.slow
DEPTH = 4
SEEDS = (0, 1, 2)


def by_heart(seed: int, number: int) -> list[EncodedQuestion]:
    """Questions of four drawn tokens, whose answer is one of 16, drawn as well."""
    draw = torch.Generator().manual_seed(seed)
    contexts = torch.randint(16, 48, (number, 4), generator=draw).tolist()
    answers = torch.randint(48, 64, (number,), generator=draw).tolist()
    return [
        EncodedQuestion(id=str(n), context=tuple(context), choices=((answer, 3), (4, 3)), answer=0)
        for n, (context, answer) in enumerate(zip(contexts, answers, strict=True))
    ]


ASKED, HELD_OUT, MORE = by_heart(0, 128), by_heart(1, 128), by_heart(2, 512)
"""What is learned by heart; and questions of the same kind that only the teacher has an opinion on."""


def train(
    model: LanguageModel,
    loss: Loss,
    steps: int,
    seed: int = 0,
    teacher: LanguageModel | None = None,
    questions: list[EncodedQuestion] = ASKED,
) -> None:
    training = Training(batch_size=32, learning_rate=3e-3, warmup=0.05, precision="float32")
    source = Questions(
        encoded=questions, loss=loss, batch_size=32, accumulation=1, pad_token_id=0, seed=seed, first=0, steps=steps
    )
    answers = None if teacher is None else Live(teacher.model, loss.needs)
    Trainer(model, source, loss, training, steps, teacher=answers, seed=seed).run()


@cache
def trained() -> LanguageModel:
    model = LanguageModel(model=tiny_model("llama", layers=DEPTH), tokenizer=None)  # type: ignore[arg-type]
    initialise(model, 0)
    train(model, CrossEntropy(), 200)
    return model


def pruned(pruner: Pruner, seed: int) -> LanguageModel:
    model = copy.deepcopy(trained())
    context = PruningContext(generator=torch.Generator().manual_seed(seed), sparsity=0.5)
    pruner.prune(model, pruner.left(model), 0.5, context)
    return model


@torch.no_grad()
def far(loss: Loss, model: LanguageModel, questions: list[EncodedQuestion]) -> float:
    """The mean of a loss against the trained model."""
    batch = pack(questions, loss.reads, loss.positions, 0, labelled=False)
    value = loss(batch, forward(model.model, batch, loss.needs), forward(trained().model, batch, loss.needs))
    return float(value.total) / value.count


@torch.no_grad()
def right_after(layer: int, model: LanguageModel) -> float:
    """Share of the answers that the model knows after so many layers."""
    batch = pack(ASKED, "gold", "answer", 0, labelled=True)
    first = batch.token_id != 3
    said = forward(model.model, batch, {"hidden_states"}).after(layer).logits[batch.token_read[first]]
    return float((said.argmax(dim=1) == batch.token_id[first]).float().mean())


def test_hints_fall_far_below_what_logits_alone_make_of_them_and_cost_the_logits_nothing() -> None:
    neurons = Pruner(criterion=Random(), structure=MlpNeurons(), allocation=Layerwise())
    alone, hinted = KL(), WeightedSum(terms={"kl": KL(), "hints": Hints()})
    found = []
    for seed in SEEDS:
        start = pruned(neurons, seed)
        one, other = copy.deepcopy(start), copy.deepcopy(start)
        train(one, alone, 100, seed, trained(), MORE)
        train(other, hinted, 100, seed, trained(), MORE)
        states = [far(Hints(), model, HELD_OUT) for model in (start, one, other)]
        found.append((states, [far(KL(), model, HELD_OUT) for model in (one, other)]))
    for (before, without, after), _ in found:
        assert after < 0.7 * without and without < before, found
    logits, both = (sum(far_off[which] for _, far_off in found) for which in (0, 1))
    assert both < 1.05 * logits, found


def test_layers_of_the_teacher_are_a_better_start_than_drawn_weights() -> None:
    depth = Pruner(criterion=Alternate(), structure=Layers(), allocation=Layerwise())
    found = []
    for seed in SEEDS:
        taken = pruned(depth, seed)
        assert taken.removed["layers"] == ((1, 2),)
        drawn = copy.deepcopy(taken)
        initialise(drawn, seed)
        for model in (taken, drawn):
            train(model, KL(), 60, seed, trained())
        found.append([far(KL(), model, ASKED) for model in (taken, drawn)])
    assert all(taken < 0.5 * drawn for taken, drawn in found), found


def test_exits_learn_what_the_last_layer_says() -> None:
    model = copy.deepcopy(trained())
    before = [right_after(layer, model) for layer in range(1, DEPTH + 1)]
    train(model, WeightedSum(terms={"ce": CrossEntropy(reads="choices"), "exits": Exits()}), 200)
    after = [right_after(layer, model) for layer in range(1, DEPTH + 1)]
    assert before[-1] > 0.9 and after[-1] >= before[-1] - 0.02, (before, after)
    assert all(later > earlier + 0.05 for earlier, later in zip(before[:-1], after[:-1], strict=True)), (before, after)
    assert after[0] > before[0] + 0.2, (before, after)
