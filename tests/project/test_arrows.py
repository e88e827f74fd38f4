"""Who may import what: the arrows of the design."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    path.relative_to(base).with_suffix("").as_posix().replace("/", "."): path
    for base, pattern in ((ROOT / "src", "*/**/*.py"), (ROOT, "analysis/**/*.py"))
    for path in base.glob(pattern)
}
HYDRA = ("regraft.__main__", "regraft.sweeps", "hydra_plugins")
ROOMS = (
    "distillation",
    "evaluation",
    "models",
    "pruning",
    "quantization",
    "recovery",
    "tasks",
    "tracking",
)


def under(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imported(module: str) -> Iterator[str]:
    """Every module that `module` imports at any depth of its code, type checking included."""
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_arrows(module: str) -> None:
    for name in imported(module):
        if under(name, "hydra", "omegaconf"):
            assert under(module, *HYDRA), f"{module} imports {name}: only {HYDRA} know Hydra"
        if under(name, "wandb", "wandb_workspaces"):
            assert under(module, "regraft.tracking.wandb"), f"{module} imports {name}: only tracking knows W&B"
        if under(name, "trackio"):
            assert under(module, "regraft.tracking.trackio"), f"{module} imports {name}: only tracking knows trackio"
        if under(module, "analysis") and under(name, "regraft"):
            assert under(name, "regraft.records", "regraft.tracking"), f"{module} imports {name}"
        if under(module, "regraft") and name.startswith("analysis"):
            pytest.fail(f"{module} imports {name}: runs do not know the analysis")
        if under(module, "regraft.interfaces") and under(name, "regraft"):
            allowed = ("regraft.cache", "regraft.config.ranges", "regraft.records")
            assert under(name, *allowed), f"{module} imports {name}"
        if under(module, *(f"regraft.{room}" for room in ROOMS)):
            assert not under(name, "regraft.run", "regraft.stages", "regraft.sweeps"), f"{module} imports {name}"


def test_all_sources_are_seen() -> None:
    assert {"regraft.interfaces", "regraft.__main__", "analysis.collect"} <= set(SOURCES)
