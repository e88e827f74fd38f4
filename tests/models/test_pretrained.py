from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from regraft.cache import Cache, digest
from regraft.config.components import Allowed, build
from regraft.config.ranges import ConfigError
from regraft.models.pretrained import Pretrained
from regraft.sources.base import SourceError
from regraft.sources.hub import HubModel
from regraft.sources.local import LocalFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONF = Path(__file__).parents[2] / "conf" / "model"


def write_tokenizer(folder: Path, **special: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<end>", "<pad>", "one", "two", "three"]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Callable[..., PreTrainedModel]) -> Path:
    path = tmp_path / "model"
    tiny_model("llama").to(torch.bfloat16).save_pretrained(path)
    write_tokenizer(path, eos_token="<end>")
    return path


def local(folder: Path, **fields: Any) -> Pretrained:
    return Pretrained(name="local", source=LocalFolder(path=folder), **fields)


def test_weights_are_those_of_the_folder(
    folder: Path, cache: Cache, tiny_model: Callable[..., PreTrainedModel]
) -> None:
    loaded = local(folder).load(cache)
    expected = tiny_model("llama").to(torch.bfloat16).state_dict()
    assert {
        name: torch.equal(weight, expected[name]) for name, weight in loaded.model.state_dict().items()
    } == dict.fromkeys(expected, True)
    assert not loaded.model.training
    assert loaded.removed == {}


@pytest.mark.parametrize(
    ("dtype", "expected"), [(None, torch.bfloat16), ("float32", torch.float32), ("float16", torch.float16)]
)
def test_dtype(folder: Path, cache: Cache, dtype: Any, expected: torch.dtype) -> None:
    loaded = local(folder, dtype=dtype).load(cache)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {expected}


def test_attention_implementation(folder: Path, cache: Cache) -> None:
    assert local(folder, attn_implementation="eager").load(cache).model.config._attn_implementation == "eager"


def test_padding_token_is_the_end_token_if_there_is_none(folder: Path, cache: Cache) -> None:
    loaded = local(folder).load(cache)
    assert (loaded.tokenizer.pad_token, loaded.pad_token_id) == ("<end>", 0)
    write_tokenizer(folder, eos_token="<end>", pad_token="<pad>")
    assert local(folder).load(cache).pad_token_id == 1


def test_no_bar_is_shown(folder: Path, cache: Cache, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    local(folder).load(cache)
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()


def test_code_of_a_model_is_not_run(folder: Path, cache: Cache) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "foreign",
        "auto_map": {"AutoConfig": "foreign.Foreign", "AutoModelForCausalLM": "foreign.F"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "foreign.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    with pytest.raises(SourceError, match=r"model local .*transformers cannot load it"):
        local(folder).load(cache)
    assert not (folder / "ran").exists()


def test_pickled_weights_are_not_read(folder: Path, cache: Cache) -> None:
    """A folder that got its pickle after the config was checked."""
    model = local(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match="cannot load it"):
        model.load(cache)


def test_folder_without_tokenizer(folder: Path, cache: Cache) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(SourceError, match="and a tokenizer"):
        local(folder).load(cache)


def test_identity_follows_what_moves_the_numbers(folder: Path) -> None:
    def identity(**fields: Any) -> str:
        return digest(local(folder, **fields).identity())

    assert identity() == digest(Pretrained(name="another", source=LocalFolder(path=folder)).identity())
    assert len({identity(), identity(dtype="float32"), identity(attn_implementation="eager")}) == 3
    assert digest(Pretrained(name="local", source=HubModel(repo="a/b")).identity()) != identity()


@pytest.mark.parametrize("choice", ["smollm2_135m", "olmo2_1b", "olmo2_7b_sft"])
def test_choices_are_whole(choice: str) -> None:
    model = build(yaml.safe_load((CONF / f"{choice}.yaml").read_text()), "model", Allowed())
    assert isinstance(model, Pretrained)
    assert digest(model.identity())


def test_local_choice_asks_for_the_folder(folder: Path) -> None:
    node = yaml.safe_load((CONF / "local.yaml").read_text())
    with pytest.raises(ConfigError, match=r"model\.source\.path: is missing; set it with model\.source\.path="):
        build(node, "model", Allowed())
    node["source"]["path"] = str(folder)
    assert build(node, "model", Allowed()) == local(folder)
    node["source"]["path"] = str(folder / "absent")
    with pytest.raises(ConfigError, match=r"model\.source\.path=.*absent: must be a folder that exists"):
        build(node, "model", Allowed())


@pytest.mark.slow
def test_smollm2_speaks_english_from_a_plain_folder() -> None:
    model = build(yaml.safe_load((CONF / "smollm2_135m.yaml").read_text()), "model", Allowed())
    loaded = model.load(Cache())
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 134_515_008
    folder = model.source.fetch(Cache())
    alone = f"""
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})
model = AutoModelForCausalLM.from_pretrained({str(folder)!r})
tokens = tokenizer("The capital of France is", return_tensors="pt")
print(tokenizer.decode(model.generate(**tokens, max_new_tokens=1, do_sample=False)[0]))
assert "regraft" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "The capital of France is Paris"
