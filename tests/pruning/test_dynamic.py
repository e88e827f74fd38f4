"""SET and RigL: what drops, what grows, and that nothing else changes; ERK."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from architectures import tiny_model
from at_hand import QUESTIONS, language_model
from hypothesis import given
from hypothesis import strategies as st

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.interfaces import LanguageModel, PruningContext, Scored
from regraft.pruning.allocation.erk import Erk
from regraft.pruning.allocation.layerwise import removed
from regraft.pruning.criteria.random import Random
from regraft.pruning.pruner import Pruner
from regraft.pruning.schedules.dynamic import Dynamic
from regraft.pruning.schedules.rigl import RigL
from regraft.pruning.schedules.sparse_evolution import SparseEvolution
from regraft.pruning.structures.weights import Weights
from regraft.recovery.batches import Questions
from regraft.recovery.loop import Trainer
from regraft.recovery.progress import Progress
from regraft.recovery.training import Training

TRAINING = Training(batch_size=8, learning_rate=1e-2, warmup=0.0)
STEPS = 12
METHODS = [RigL(interval=3), SparseEvolution(interval=3, decay="constant")]


def masked(sparsity: float = 0.8) -> LanguageModel:
    model = language_model()
    pruner = Pruner(criterion=Random(), structure=Weights(), allocation=Erk())
    pruner.prune(model, pruner.left(model), sparsity, PruningContext(generator=torch.Generator().manual_seed(0)))
    return model


def trainer(model: LanguageModel, schedule: Dynamic, progress: Progress | None = None, **more) -> Trainer:
    loss = CrossEntropy()
    source = Questions(
        encoded=QUESTIONS, loss=loss, batch_size=8, accumulation=1, pad_token_id=0, seed=0, first=0, steps=STEPS
    )
    seams = schedule.seams(model, Weights(), STEPS, seed=5)
    on_gradients = (*more.pop("on_gradients", ()), *seams.on_gradients)
    after_step = (*more.pop("before_move", ()), *seams.after_step, *more.pop("after_step", ()))
    return Trainer(
        model, source, loss, TRAINING, STEPS, on_gradients=on_gradients, after_step=after_step, progress=progress
    )


@pytest.mark.parametrize("schedule", METHODS, ids=["rigl", "set"])
def test_masks_move_by_the_rule_and_keep_their_size(schedule: Dynamic) -> None:
    model = masked()
    size = {name: int(mask.sum()) for name, mask in model.masks.items()}
    gradients: dict[str, torch.Tensor] = {}
    before: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    moved: list[int] = []

    def note(network, step):
        gradients.update({n: p.grad.clone() for n, p in network.named_parameters() if n in model.masks})

    def stepped(network, step):
        before.update(
            {n: (p.detach().clone(), model.masks[n]) for n, p in network.named_parameters() if n in model.masks}
        )

    def check(network, step):
        named = dict(network.named_parameters())
        changed = [name for name in before if model.masks[name] is not before[name][1]]
        assert bool(changed) == (step % 3 == 0 and step < 9)
        for name in changed:
            (weights, old), new = before[name], model.masks[name]
            # what is off has moved with the optimizer's moments by nothing
            assert not weights[~old].any()
            fraction = 0.3 if schedule.decay == "constant" else 0.15 * (1 + math.cos(math.pi * step / 9))
            number = math.floor(size[name] * fraction + 0.5)
            alive = [(abs(float(weights.flatten()[i])), i) for i in old.flatten().nonzero().flatten().tolist()]
            dropped = {i for _, i in sorted(alive)[:number]}
            off = [i for i in range(old.numel()) if i in dropped or not old.flatten()[i]]
            grown = set(new.flatten().nonzero().flatten().tolist()) - {i for _, i in alive if i not in dropped}
            assert len(grown) == number and grown <= set(off)
            if isinstance(schedule, RigL):
                wish = gradients[name].abs().flatten()
                assert min(float(wish[i]) for i in grown) >= max(float(wish[i]) for i in set(off) - grown)
            for i in grown - dropped:
                assert named[name].flatten()[i] == 0
            for i in grown & dropped:
                assert named[name].flatten()[i] == weights.flatten()[i]
        moved.append(step) if changed else None

    training = trainer(model, schedule, on_gradients=[note], before_move=[stepped], after_step=[check])
    for step in range(1, STEPS + 1):
        training.run(until=step)
        for name, mask in model.masks.items():
            parameter = model.model.get_parameter(name)
            assert int(mask.sum()) == size[name]
            assert not parameter[~mask].any()
            for moment in ("exp_avg", "exp_avg_sq"):
                assert not training.optimizer.state[parameter][moment][~mask].any()
    assert moved == [3, 6]


@pytest.mark.parametrize("schedule", METHODS, ids=["rigl", "set"])
def test_an_iteration_of_rigl_moves_masks_or_takes_a_step_and_one_of_set_does_both(schedule: Dynamic) -> None:
    model = masked()
    changed = {}

    def note(network, step):
        before.update({name: tensor.clone() for name, tensor in network.state_dict().items()})

    def compare(network, step):
        changed[step] = any(not torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())

    before: dict[str, torch.Tensor] = {}
    training = trainer(model, schedule, on_gradients=[note], before_move=[compare])
    training.run()
    assert [step for step, stepped in changed.items() if not stepped] == ([3, 6] if isinstance(schedule, RigL) else [])
    taken = {float(state["step"]) for state in training.optimizer.state.values()}
    assert taken == {STEPS - 2.0 if isinstance(schedule, RigL) else float(STEPS)}


@pytest.mark.parametrize("schedule", METHODS, ids=["rigl", "set"])
def test_an_interrupted_training_goes_on_with_its_masks(schedule: Dynamic, tmp_path: Path) -> None:
    whole = masked()
    trainer(whole, schedule).run()
    progress = Progress(tmp_path / "kept.safetensors", "key", every=5)
    trainer(masked(), schedule, progress).run(until=5)
    again = masked()
    training = trainer(again, schedule, progress)
    training.run()
    assert training.lines[0]["step"] == 1 and len(training.lines) == STEPS
    assert any(not torch.equal(mask, masked().masks[name]) for name, mask in again.masks.items())
    for name, mask in whole.masks.items():
        assert torch.equal(mask, again.masks[name])
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_a_training_too_short_to_move_masks_is_refused_where_there_are_some() -> None:
    late = RigL(interval=STEPS)
    with pytest.raises(ConfigError, match=f"interval={STEPS}: must be below"):
        late.seams(masked(), Weights(), STEPS, seed=0)
    # before the first pruning, and at sparsity 0, there are none
    late.seams(language_model(), Weights(), STEPS, seed=0)


def test_the_seed_moves_what_set_grows() -> None:
    names = list(masked().masks)
    draws = []
    for seed in (0, 0, 1):
        note, wanted = SparseEvolution().wishes(seed)
        note(names[0], torch.zeros(4, 5))
        draws.append((wanted(names[0], 3), wanted(names[0], 6)))
    assert torch.equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][0], draws[2][0]) and not torch.equal(*draws[0])


@pytest.mark.parametrize(("key", "value"), [("interval", 0), ("fraction", 1.0), ("end", 0.0)])
def test_what_cannot_be_is_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{key}="):
        RigL(**{key: value})  # type: ignore[arg-type]


MODEL = LanguageModel(model=tiny_model("qwen3"), tokenizer=None)  # type: ignore[arg-type]


@given(sparsity=st.floats(0.0, 0.995))
def test_erk_meets_the_total_and_follows_the_shapes(sparsity: float) -> None:
    structure = Weights()
    dense = structure.left(MODEL)
    context = PruningContext(generator=torch.Generator())
    losses = Erk().losses(
        Scored(model=MODEL, structure=structure, scores=(), dense_units=dense, context=context), sparsity
    )
    assert sum(losses) == removed(sum(dense), sparsity)
    shapes = [tuple(group.parts[0].parameter.shape) for group in structure.groups(MODEL.model)]
    kept = [units - lost for units, lost in zip(dense, losses, strict=True)]
    assert all(1 <= left <= units for left, units in zip(kept, dense, strict=True))
    epsilons = [
        left / (out + into) for left, units, (out, into) in zip(kept, dense, shapes, strict=True) if left < units
    ]
    # of matrices that are not whole: density * out * in / (out + in) is one number, but for rounding
    assert not epsilons or max(epsilons) - min(epsilons) <= 2 / min(out + into for out, into in shapes)


def test_erk_needs_a_weight_a_matrix() -> None:
    structure = Weights()
    context = PruningContext(generator=torch.Generator())
    dense = structure.left(MODEL)
    with pytest.raises(ConfigError, match=r"sparsity=0\.9999: must leave at least one weight of each of the 21"):
        Erk().losses(Scored(model=MODEL, structure=structure, scores=(), dense_units=dense, context=context), 0.9999)
