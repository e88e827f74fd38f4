"""The typed edge: what a YAML file may name, and what errors say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from regraft.config.components import Allowed, build, described
from regraft.config.ranges import ConfigError
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.weighted_sum import WeightedSum

KL_TARGET = "regraft.distillation.losses.kl.KL"


def made(node: dict) -> object:
    return build(node, "loss", Allowed())


def test_a_component_is_built_with_the_types_of_its_fields() -> None:
    loss = made({"_target_": KL_TARGET, "temperature": 2, "reads": "question"})
    assert loss == KL(temperature=2.0, reads="question")


def test_nested_components_are_built_first() -> None:
    loss = made(
        {"_target_": "regraft.distillation.losses.weighted_sum.WeightedSum", "terms": {"kl": {"_target_": KL_TARGET}}}
    )
    assert loss == WeightedSum(terms={"kl": KL()})


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "regraft.config.components.importlib.import_module",  # an attribute of one of our modules
        "regraft.cache.shutil.rmtree",
        "regraft.cache.Cache",  # ours, but no component
        "regraft.interfaces.Loss",  # a component, but abstract
        "regraft.records.Path",
        "regraft.distillation.losses.kl.require",
        "regraft.no_such_module.Thing",
        "regraftevil.Thing",
        "KL",
        "",
    ],
)
def test_a_target_that_is_no_component_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="loss._target_="):
        made({"_target_": target})


def test_a_refused_module_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="must be a component of regraft"):
        made({"_target_": "trap.Thing"})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"temperature": -1}, r"loss\.temperature=-1\.0: must be a finite number above 0\."),
        ({"temperature": "hot"}, r"loss\.temperature=hot: input should be a valid number"),
        ({"reads": "answers"}, r"loss\.reads=answers: input should be 'gold', 'question', 'choices' or 'drawn_choice'"),
        ({"temprature": 1}, r"loss\.temprature: no such key; KL has temperature, reads, positions"),
        ({"temperature": "???"}, r"loss\.temperature: is missing; set it with loss\.temperature="),
    ],
)
def test_errors_name_the_key_the_value_and_what_is_allowed(node: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made({"_target_": KL_TARGET, **node})


def test_a_component_of_the_wrong_kind_is_refused() -> None:
    node = {"_target_": "regraft.stages.preparation.FineTune", "training": {"_target_": KL_TARGET}}
    with pytest.raises(ConfigError, match=r"loss\.training: must be a Training, not KL"):
        made(node)


def test_described_leaves_out_what_is_at_its_default() -> None:
    assert described(KL()) == {"_target_": KL_TARGET}
    assert described(KL(temperature=2.0)) == {"_target_": KL_TARGET, "temperature": 2.0}


def test_a_folder_of_the_user_may_bring_classes(tmp_path: Path) -> None:
    (tmp_path / "my_losses_for_test.py").write_text(
        "from dataclasses import dataclass\n"
        "from regraft.distillation.losses.kl import KL\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Mine(KL):\n"
        "    strength: float = 1.0\n"
    )
    found = build({"_target_": "my_losses_for_test.Mine", "strength": 3}, "loss", Allowed((tmp_path,)))
    assert found.strength == 3.0


def test_what_a_users_module_imported_from_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sneaky_for_test.py").write_text("from pathlib import Path\nfrom os import system\n")
    for name in ("Path", "system"):
        with pytest.raises(ConfigError, match="must be a component class"):
            build({"_target_": f"sneaky_for_test.{name}"}, "loss", Allowed((tmp_path,)))


def test_the_typed_edge_needs_no_torch() -> None:
    code = "import sys, regraft.config.schema; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
