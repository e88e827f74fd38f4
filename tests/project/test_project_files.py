"""What the project's own files promise one another."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from regraft.interfaces import Component

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
CHOICES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))


def targets(node: Any) -> Iterator[dict[str, Any]]:
    """The mappings with `_target_`, at any depth."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_names_components_and_fields_that_exist(choice: str) -> None:
    plain = yaml.safe_load((CONF / choice).read_text(encoding="utf-8")) or {}
    for node in targets(plain.get("hydra", {})):
        module, _, name = node["_target_"].rpartition(".")
        assert hasattr(importlib.import_module(module), name)
    for node in targets({key: value for key, value in plain.items() if key != "hydra"}):
        module, _, name = node["_target_"].rpartition(".")
        if not module.startswith("regraft."):
            assert choice.startswith("hydra/"), f"{node['_target_']} is no class of regraft"
            assert hasattr(pytest.importorskip(module), name)
            continue
        found = getattr(importlib.import_module(module), name)
        assert issubclass(found, Component)
        assert not inspect.isabstract(found)
        fields = {"defaults"} | {field.name for field in dataclasses.fields(found)}
        assert set(node) - {"_target_"} <= fields
    if not choice.startswith(("hydra/", "experiment/")) and choice != "config.yaml":
        assert "_target_" in plain or "defaults" in plain or plain == {}


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if not choice.startswith("hydra/")])
def test_every_choice_says_first_what_it_is(choice: str) -> None:
    lines = (CONF / choice).read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    assert re.match(r"# \S+", first)


def components() -> list[str]:
    """Modules that a YAML file names."""
    found = set()
    for path in CONF.rglob("*.yaml"):
        for node in targets(yaml.safe_load(path.read_text(encoding="utf-8"))):
            if node["_target_"].startswith("regraft."):
                found.add(node["_target_"].rpartition(".")[0])
    return sorted(found)


def test_component_modules_are_imported_without_heavy_libraries() -> None:
    modules = [*components(), "regraft.__main__"]
    program = (
        "import importlib, sys\n"
        "for module in sys.argv[1:]:\n"
        "    importlib.import_module(module)\n"
        "    heavy = {'torch', 'transformers', 'numpy', 'pandas', 'datasets', 'wandb'} & set(sys.modules)\n"
        "    assert not heavy, f'{module} imports {sorted(heavy)}'\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *modules], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", ".ci/run", "CHANGELOG.md"])
def test_documents_name_make_targets_that_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"`[^`\n]+`|^ {4}.*$|^make .*$", text, re.MULTILINE))
    named = set(re.findall(r"\bmake (?:--\S+ )*([a-z-]+)", code))
    assert named <= make_targets()


def test_make_help_lists_every_target() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True, timeout=30).stdout
    assert set(re.findall(r"^  make ([a-z-]+) ", shown, re.MULTILINE)) == make_targets()
    assert {"sweep", "study", "figures", "report", "test", "check", "fix", "clean"} <= make_targets()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))


def test_every_dependency_is_pinned_within_its_range() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    pinned_extras = [line for name, lines in extras.items() if name not in ("lm-eval", "search") for line in lines]
    for line in [*project["dependencies"], *pinned_extras]:
        requirement = Requirement(line)
        pinned = pins()[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(pinned), line
        assert "+" not in pinned


def test_the_version_is_said_alike_everywhere() -> None:
    import regraft

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == regraft.__version__ == citation["version"]
    assert project["license"] == citation["license"] == "Apache-2.0"
