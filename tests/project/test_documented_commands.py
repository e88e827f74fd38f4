"""Commands in the documents do what they say as they are written: their keys and choices exist and go together."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from analysis.__main__ import parser
from regraft.__main__ import conf
from regraft.sweeps.composition import Composer
from regraft.sweeps.identity import register

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(ROOT.glob("docs/grafting/*.md"))
COMMAND = re.compile(
    r"^ {4,}((?:python -m )?(?:regraft|analysis) .*)$|`((?:python -m )?(?:regraft|analysis) [^`]+)`", re.M
)


def commands(program: str) -> list[str]:
    """What is behind `regraft` or `analysis` in each command of the documents: in blocks, and within the text."""
    found = dict[str, None]()
    for document in DOCUMENTS:
        text = re.sub(r" *\\\n *", " ", document.read_text(encoding="utf-8"))
        for block, within in COMMAND.findall(text):
            words = shlex.split(block or within, comments=True)
            words = words[2:] if words[0] == "python" else words
            if words[0] == program and "..." not in words:
                found[shlex.join(words[1:])] = None
    return list(found)


def settings() -> set[str]:
    """Keys of the group `recovery` that the documents give a value."""
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    return {key for text in texts for key in re.findall(r"`recovery\.(\w+)=", text)}


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    register()
    with initialize_config_dir(str(conf()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield Composer(loader, loader.load_configuration("config", ["sweep=mine"], run_mode=RunMode.MULTIRUN))


def points(words: list[str]) -> list[list[str]]:
    """A run of each value that is swept, beside the first of all others."""
    overrides = OverridesParser.create().parse_overrides(words)
    values = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override()
        else [str(each.input_line)]
        for each in overrides
    ]
    firsts = [each[0] for each in values]
    swept = [(place, value) for place, each in enumerate(values) for value in each[1:]]
    return [firsts, *([*firsts[:place], value, *firsts[place + 1 :]] for place, value in swept)]


@pytest.mark.parametrize("command", commands("regraft"))
def test_a_documented_run_is_composed_and_allowed(
    composer: Composer, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    for name in ("A.jsonl", "B.jsonl", "FOLDER/config.json", "FOLDER/model.safetensors"):
        (tmp_path / name).touch()
    words = [word for word in shlex.split(command) if word not in ("-m", "--multirun") and word[:5] != "seed="]
    for overrides in points(words):
        composer.config(overrides)


def test_documented_settings_of_the_recovery_are_in_every_one() -> None:
    found = settings()
    assert {"tokens", "flops", "gradient_checkpointing", "optimizer", "frozen"} <= found
    for name in ("small_model", "pretrained"):  # the others begin with these
        text = (Path(conf()) / "recovery" / f"{name}.yaml").read_text(encoding="utf-8")
        assert found <= set(re.findall(r"^(\w+):", text, re.M))


@pytest.mark.parametrize("command", commands("analysis"))
def test_a_documented_analysis_has_these_arguments(command: str) -> None:
    parser().parse_args(shlex.split(command))


def test_commands_are_found() -> None:
    assert len(commands("regraft")) > 30 and len(commands("analysis")) > 3
