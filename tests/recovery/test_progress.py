"""A training that goes on ends as one that was never interrupted."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import tiny_model
from test_loop import questions

from regraft import interruption
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.interfaces import LanguageModel
from regraft.recovery.loop import Trainer
from regraft.recovery.progress import Progress
from regraft.recovery.training import Training

STEPS = 7
TRAINING = Training(batch_size=8, accumulation=2, warmup=0.3, weight_decay=0.1)


def trainer(path: Path | None, architecture: str = "olmo2", key: str = "key", every: int | None = None) -> Trainer:
    torch.manual_seed(5)
    student = LanguageModel(model=tiny_model(architecture), tokenizer=None)  # type: ignore[arg-type]
    progress = None if path is None else Progress(path, key, every)
    batches = questions(CrossEntropy(), TRAINING, STEPS)
    return Trainer(student, batches, CrossEntropy(), TRAINING, STEPS, progress=progress)


def weights(done: Trainer) -> dict[str, torch.Tensor]:
    return done.student.model.state_dict()


def assert_same(one: Trainer, other: Trainer) -> None:
    assert one.lines == other.lines and one.examples == other.examples
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())
    mine, theirs = one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    for number, values in mine.items():
        assert all(torch.equal(value, theirs[number][name]) for name, value in values.items())


@pytest.mark.parametrize("architecture", ["olmo2", "gpt2", "gemma3"])
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_interrupted_at_any_step_it_ends_the_same(tmp_path: Path, architecture: str, stop: int) -> None:
    """Tied embeddings (GPT-2) and buffers too; a random draw between the steps comes out the same."""
    whole = trainer(None, architecture)
    whole.run()
    drawn = torch.rand(3)
    path = tmp_path / "progress" / "key.safetensors"
    first = trainer(path, architecture, every=1)
    first.run(until=stop)
    second = trainer(path, architecture, every=1)
    torch.rand(100)
    second.run()
    assert_same(second, whole)
    assert torch.equal(torch.rand(3), drawn)
    assert second.seconds > 0


def test_a_training_that_is_rewound_does_not_jump_to_what_was_kept(tmp_path: Path) -> None:
    going = trainer(tmp_path / "key.safetensors", every=1)
    going.run(until=2)
    state = going.state()
    going.run(until=5)
    going.restore(state)
    going.run(until=3)
    assert [line["step"] for line in going.lines] == [1, 2, 3, 4, 5, 3]
    assert going.lines[-1] == going.lines[2]


def test_it_is_written_every_so_many_steps(tmp_path: Path) -> None:
    path = tmp_path / "key.safetensors"
    begun = trainer(path, every=3)
    begun.run(until=2)
    assert not path.exists()
    begun.run(until=5)
    kept = Progress(path, "key", None).load()
    assert kept is not None and kept.state.step == 3 and len(kept.lines) == 3


def test_after_the_last_step_only_weights_are_kept_and_nothing_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "key.safetensors"
    done = trainer(path)
    done.run()
    kept = Progress(path, "key", None).load()
    assert kept is not None and kept.state.step == STEPS and not kept.state.optimizer
    again = trainer(path)
    again.batches = None  # type: ignore[assignment]
    again.run()
    assert again.lines == done.lines
    assert all(torch.equal(tensor, weights(done)[name]) for name, tensor in weights(again).items())


def tear(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def of_another_version(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"random": torch.zeros(1)}, path, metadata={"version": "0"})


@pytest.mark.parametrize("damage", [tear, flip, of_another_version, None], ids=["torn", "flipped", "other", "key"])
def test_what_cannot_be_continued_is_told_and_begun_anew(
    tmp_path: Path, damage, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trainer(None)
    whole.run()
    path = tmp_path / "key.safetensors"
    trainer(path, every=1).run(until=4)
    if damage is not None:
        damage(path)
    with caplog.at_level(logging.WARNING):
        anew = trainer(path, key="key" if damage else "other")
        anew.run()
    assert str(path) in caplog.text and "the training starts again" in caplog.text
    assert_same(anew, whole)


def test_where_nothing_can_be_written_the_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        done = trainer(tmp_path / "file" / "key.safetensors", every=3)
        done.run()
    assert done.step == STEPS
    assert "cannot be kept" in caplog.text


def test_a_signal_in_a_step_is_heard_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.safetensors"
    told = trainer(path)
    monkeypatch.setattr(interruption._State, "told", None)

    class Signalled(CrossEntropy):
        def __call__(self, *arguments):  # type: ignore[no-untyped-def]
            if told.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(*arguments)

    told.loss = Signalled()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(interruption.Stopped, match="stopped by SIGTERM"), interruption.watch():
        told.run()
    assert signal.getsignal(signal.SIGTERM) is before
    kept = Progress(path, "key", None).load()
    assert kept is not None and kept.state.step == told.step == 3
    monkeypatch.setattr(interruption._State, "told", None)
    whole, again = trainer(None), trainer(path)
    whole.run()
    again.run()
    assert_same(again, whole)


def test_a_shared_step_is_the_sum_of_its_shares() -> None:
    """Two processes read what one reads, each question once; who has no question of a part reads one that counts 0."""
    source = questions(CrossEntropy(), Training(batch_size=5, accumulation=3), 9)
    for number in range(9):
        whole = [batch.ids for batch, _ in source.step(number, None)]  # type: ignore[arg-type]
        shares = [list(replace(source, rank=rank, processes=2).step(number, None)) for rank in (0, 1)]  # type: ignore[arg-type]
        assert len(shares[0]) == len(shares[1]) == len(whole)
        for part, ids in enumerate(whole):
            read = [name for share in shares for name in share[part][0].ids[: share[part][1]]]
            assert sorted(read) == sorted(ids)
