"""A model that cannot be exported is no reason to lose what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from conftest import BRIEF, numbers
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from regraft.__main__ import conf
from regraft.config.schema import RunConfig
from regraft.interfaces import Exporter, LanguageModel
from regraft.models.exporters.plain import Plain
from regraft.records import Record, is_finished
from regraft.run import run
from regraft.sweeps.identity import register, typed


@dataclass(frozen=True, kw_only=True)
class Impossible(Exporter):
    def write(self, model: LanguageModel, folder: Path) -> None:
        raise ValueError("export=impossible: cannot hold it. Choose another.")


def config(*overrides: str) -> RunConfig:
    register()
    with initialize_config_dir(str(conf()), version_base="1.3"):
        composed = compose("config", list(overrides), return_hydra_config=True)
    hydra = composed.hydra
    with open_dict(composed):
        del composed["hydra"]
    return typed(composed, hydra)


def test_the_record_is_that_of_a_finished_run_and_says_why_there_is_no_checkpoint(
    tmp_path: Path, warm_cache: Path
) -> None:
    folder = tmp_path / "multirun" / "mine" / "run"
    folder.mkdir(parents=True)
    asked = config("loss=none", "save_model=true", f"runtime.cache={warm_cache}", *BRIEF)
    record = run(replace(asked, export=Impossible()), folder, {}, {}, "mine")
    assert record.status == "finished" and record == Record.load(folder)
    assert record.error is not None and record.error.startswith("export=impossible: cannot hold it.")
    assert len(record.rows) > 20 and (folder / "predictions.parquet").exists()
    assert is_finished(folder) and not is_finished(folder, asked.model_file)

    # asked again it is exported, and nothing is done twice
    again = run(replace(asked, export=Plain()), folder, {}, {}, "mine")
    assert again.error is None and is_finished(folder, asked.model_file)
    assert numbers(again) == numbers(record)
