"""Runs that initialise and rewind, walked in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import BRIEF, numbers
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from regraft.__main__ import conf
from regraft.config.schema import RunConfig
from regraft.interfaces import LanguageModel
from regraft.models import export
from regraft.records import Record
from regraft.run import run
from regraft.stages import rewind
from regraft.sweeps.identity import register, typed

SMALL = (
    *BRIEF,
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "model.num_hidden_layers=2",
    "model.threads=1",
    "model.batch_size=16",
    *(f"{part}.world.{size}" for part in ("model", "task") for size in ("entities=24", "relations=6")),
    "task.train_size=32",
    "task.test_relations=2",
    "loss=ce",
    "save_model=true",
)
"""As brief, with a model of a few thousand parameters."""


@pytest.fixture
def walked(tmp_path: Path):
    """`walked(override, ...)`: the record of a run and its saved model."""
    register()

    def make(*overrides: str) -> tuple[Record, LanguageModel]:
        given = [*SMALL, f"runtime.cache={tmp_path / 'cache'}", *overrides]
        with initialize_config_dir(str(conf()), version_base="1.3"):
            config = compose("config", given, return_hydra_config=True)
        hydra = config.hydra
        with open_dict(config):
            del config["hydra"]
        built: RunConfig = typed(config, hydra)
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        record = run(built, folder, OmegaConf.to_container(config), {"loss": "ce"}, "sweep")  # type: ignore[arg-type]
        assert record.status == "finished", record.error
        return record, export.load(folder / "checkpoint")

    return make


def test_from_scratch_has_the_pruned_shape_and_other_weights(walked) -> None:
    pruned, model = walked("sparsity=0.5")
    scratch, fresh = walked("sparsity=0.5", "pipeline=from_scratch")
    assert [stage.reused for stage in scratch.stages] == [True, True, True, False, False, False]
    assert scratch.stages[2].fingerprints == pruned.stages[2].fingerprints, "the same units went"
    assert scratch.stages[4].fingerprints["batches"] == pruned.stages[4].fingerprints["batches"]
    assert fresh.model.config.intermediate_size == model.model.config.intermediate_size == 32
    values = {(row.metric): row.value for row in scratch.rows if row.stage_index == 5}
    assert values["parameters"] == {row.metric: row.value for row in pruned.rows if row.stage_index == 5}["parameters"]
    # trained four short steps from N(0, 0.02): nothing of the trained weights is left
    up = "model.layers.0.mlp.up_proj.weight"
    assert float(fresh.model.state_dict()[up].std()) == pytest.approx(0.02, rel=0.1)


def test_a_ticket_has_the_weights_of_the_beginning_to_the_bit(walked, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[LanguageModel, dict[str, torch.Tensor]]] = []
    real = rewind.run

    def watched(stage, model, context):
        trained = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
        outcome = real(stage, model, context)
        begun = context.anchors[stage.anchor].take().model.state_dict()
        for name, tensor in model.model.state_dict().items():
            mask = model.masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
            assert torch.equal(tensor, begun[name] * mask), name
        seen.append((model, trained))
        return outcome

    monkeypatch.setitem(__import__("regraft.run").run.STAGES, "rewind", watched)
    ticket = ("pipeline=lottery_ticket", "schedule=rounds", "sparsity=0.36", "pruner/structure=weights")
    record, model = walked(*ticket, "pipeline.rewind_to=0.5")
    assert len(seen) == 2
    assert any(not torch.equal(tensor, seen[0][1][name]) for name, tensor in seen[0][0].model.state_dict().items())
    recovers = [stage for stage in record.stages if stage.stage == "recover"]
    assert [stage.details["steps"] for stage in recovers] == [2, 2, 2, 2]
    assert [stage.details["first_step"] for stage in recovers] == [0, 2, 4, 6]
    last = {row.metric: row.value for row in record.rows if row.stage_index == record.stages[-1].index}
    kept = sum(int(mask.sum()) for mask in model.masks.values())
    whole = sum(mask.numel() for mask in model.masks.values())
    assert kept / whole == pytest.approx(0.64, abs=1e-3)
    assert all(not model.model.get_parameter(name)[~mask].any() for name, mask in model.masks.items())
    assert last["parameters"] == sum(p.numel() for p in model.model.parameters()) - whole + kept
    again, same = walked(*ticket, "pipeline.rewind_to=0.5")
    assert numbers(again) == numbers(record) and all(stage.reused for stage in again.stages)
    assert all(torch.equal(t, same.model.state_dict()[name]) for name, t in model.model.state_dict().items())


def test_units_that_are_cut_are_rewound_too(walked) -> None:
    record, model = walked("pipeline=lottery_ticket", "schedule=rounds", "sparsity=0.36")
    assert model.model.config.intermediate_size == 64 - 23
    units = [stage.fingerprints["units"] for stage in record.stages if stage.stage == "prune"]
    control, other = walked("pipeline=lottery_reinitialised", "schedule=rounds", "sparsity=0.36")
    assert units == [stage.fingerprints["units"] for stage in control.stages if stage.stage == "prune"]
    up = "model.layers.0.mlp.up_proj.weight"
    assert not torch.allclose(model.model.state_dict()[up], other.model.state_dict()[up], atol=1e-2)


def test_a_share_that_rounds_to_no_unit_is_told_each_time(walked, caplog: pytest.LogCaptureFixture) -> None:
    few = ("pruner/structure=layers", "pipeline=evaluate_last")
    for seed in (0, 1):  # the second run takes the stage from the first
        caplog.clear()
        record, _ = walked(*few, "sparsity=0.1", f"seed={seed}")
        (said,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
        assert "sparsity=0.1 removed nothing: of layers, at most 2 units a group" in said and "Choose 0.5" in said
        (prune,) = [stage for stage in record.stages if stage.stage == "prune"]
        assert prune.reused == bool(seed) and prune.details["warnings"][0] in said
        assert {row.block_sparsity for row in record.rows} == {0.0}
    caplog.clear()
    record, _ = walked(*few, "sparsity=0.5")
    assert not [each for each in caplog.records if each.levelname == "WARNING"]
    assert all("warnings" not in stage.details for stage in record.stages)
    walked("pruner/budget=parameters", "pruner.budget.at_most=1e9", "pipeline=evaluate_last", "sparsity=0.5")
    assert not [each for each in caplog.records if each.levelname == "WARNING"], "the budget holds as it is"
