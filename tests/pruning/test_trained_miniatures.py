"""The order that the papers found, in small: a model of some thousand parameters learns answers by heart.

Each test takes a minute or two; what is compared is the loss at the end, over seeds, at equal steps.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from architectures import tiny_model
from at_hand import AtHand

from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.interfaces import Batch, EncodedQuestion, LanguageModel, Loss, PruningContext, Schedule
from regraft.models.initialise import initialise
from regraft.pruning.allocation.erk import Erk
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.criteria.l2 import L2
from regraft.pruning.criteria.movement import Movement
from regraft.pruning.criteria.random import Random
from regraft.pruning.pruner import Pruner
from regraft.pruning.schedules.one_shot import OneShot
from regraft.pruning.schedules.rigl import RigL
from regraft.pruning.schedules.rounds import Rounds
from regraft.pruning.structures.weights import Weights
from regraft.recovery.batches import Questions
from regraft.recovery.loop import Trainer
from regraft.recovery.training import Training
from regraft.tasks.packing import pack

CE = CrossEntropy()
STRUCTURE = Weights()
SEEDS = (0, 1, 2)


def by_heart(seed: int, number: int = 128) -> list[EncodedQuestion]:
    """Questions of four drawn tokens, whose answer is one of 16, drawn as well."""
    draw = torch.Generator().manual_seed(seed)
    contexts = torch.randint(16, 48, (number, 4), generator=draw).tolist()
    answers = torch.randint(48, 64, (number,), generator=draw).tolist()
    return [
        EncodedQuestion(id=str(n), context=tuple(context), choices=((answer, 3), (4, 3)), answer=0)
        for n, (context, answer) in enumerate(zip(contexts, answers, strict=True))
    ]


class ByHeart(AtHand):
    """The same questions to score by, to train on and to measure."""

    def __init__(self, questions: list[EncodedQuestion]) -> None:
        super().__init__(Training(batch_size=32, learning_rate=3e-3, warmup=0.05, precision="float32"))
        self.questions = questions

    def batches(self, loss: Loss | None = None) -> Iterator[Batch]:
        yield pack(self.questions, reads="gold", positions="answer", pad_token_id=0, labelled=True)

    def train(self, model: LanguageModel, loss: Loss, steps: int, **seams) -> None:
        seams.pop("learning_rate", None)
        source = Questions(
            encoded=self.questions,
            loss=loss,
            batch_size=32,
            accumulation=1,
            pad_token_id=0,
            seed=0,
            first=0,
            steps=steps,
        )
        Trainer(model, source, loss, self.training, steps, **seams).run()

    @torch.no_grad()
    def left_to_learn(self, model: LanguageModel) -> float:
        """Mean cross-entropy of the answers."""
        (batch,) = self.batches()
        value = self.value(model, CE, batch)
        return float(value.total) / value.count


def fresh(seed: int) -> LanguageModel:
    model = LanguageModel(model=tiny_model("llama", layers=2), tokenizer=None)  # type: ignore[arg-type]
    initialise(model, seed)
    return model


def prune(pruner: Pruner, model: LanguageModel, dense: dict, sparsity: float, data: ByHeart, seed: int) -> None:
    context = PruningContext(generator=torch.Generator().manual_seed(seed), sparsity=sparsity, data=data)
    pruner.prune(model, dense, sparsity, context)


def magnitude_or_movement(sparsity: float, seed: int) -> tuple[float, float]:
    """Left to learn when a model that knows other answers is pruned by magnitude at once and by movement; 300 steps."""
    old, new = ByHeart(by_heart(100 + seed)), ByHeart(by_heart(200 + seed))
    trained = fresh(seed)
    old.train(trained, CE, 200)
    results = []
    for criterion, after in ((L2(), 300), (Movement(loss=CE, steps=240, cooldown=0.2), 60)):
        model = copy.deepcopy(trained)
        pruner = Pruner(criterion=criterion, structure=STRUCTURE, allocation=Layerwise())
        prune(pruner, model, pruner.left(model), sparsity, new, seed)
        new.train(model, CE, after)
        results.append(new.left_to_learn(model))
    return results[0], results[1]


@pytest.mark.slow
def test_movement_beats_magnitude_at_once_where_little_is_left() -> None:
    few = [magnitude_or_movement(0.97, seed) for seed in SEEDS]
    assert all(movement < magnitude for magnitude, movement in few), few


def from_nothing(schedule: Schedule, sparsity: float, seed: int) -> float:
    """A drawn model under a random mask of ERK densities, trained."""
    data, model = ByHeart(by_heart(seed)), fresh(seed)
    pruner = Pruner(criterion=Random(), structure=STRUCTURE, allocation=Erk())
    prune(pruner, model, pruner.left(model), sparsity, data, seed)
    seams = schedule.seams(model, STRUCTURE, 400, seed)
    data.train(model, CE, 400, on_gradients=seams.on_gradients, after_step=seams.after_step)
    return data.left_to_learn(model)


@pytest.mark.slow
def test_masks_that_follow_the_gradient_beat_masks_that_stay() -> None:
    found = {
        name: [from_nothing(schedule, 0.95, seed) for seed in SEEDS]
        for name, schedule in {"static": OneShot(), "rigl": RigL(interval=20)}.items()
    }
    assert sum(found["rigl"]) < sum(found["static"]), found


def ticket(seed: int, sparsity: float = 0.9) -> dict[str, float]:
    """Rounds of training, pruning by magnitude and rewinding; then the same masks drawn anew, and masks shuffled."""
    data, begun = ByHeart(by_heart(seed)), fresh(seed)
    results = {}
    for name in ("ticket", "shuffled"):
        pruner = Pruner(criterion=L2(), structure=STRUCTURE, allocation=Layerwise(), shuffled=name == "shuffled")
        dense, model = pruner.left(begun), copy.deepcopy(begun)
        for target in Rounds(fraction=0.4).targets(sparsity):
            data.train(model, CE, 200)
            prune(pruner, model, dense, target, data, seed)
            rewound = copy.deepcopy(begun)
            STRUCTURE.remove(rewound, STRUCTURE.still_in(rewound, model))
            model = rewound
        if name == "ticket":
            other = copy.deepcopy(model)
            initialise(other, seed + 1000)
            data.train(other, CE, 200)
            results["reinitialised"] = data.left_to_learn(other)
        data.train(model, CE, 200)
        results[name] = data.left_to_learn(model)
    return results


@pytest.mark.slow
def test_a_ticket_beats_its_mask_drawn_anew_and_a_random_mask() -> None:
    found = [ticket(seed) for seed in SEEDS]
    assert all(each["ticket"] < min(each["reinitialised"], each["shuffled"]) for each in found), found
