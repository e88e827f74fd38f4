"""A saved model is an ordinary checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, LAYERS, VOCABULARY
from cutting import cut_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from regraft.interfaces import LanguageModel
from regraft.models import export
from regraft.models.architecture import mlp_blocks

TOKENS = torch.arange(3, 51).remainder(VOCABULARY).view(2, 24)


def language_model(architecture: str, *widths: int, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A tiny model with a tokenizer; `widths` are the neurons that its layers keep."""
    words = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", "how", "many", "legs"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    model = cut_model(architecture, neurons=widths).to(dtype)  # type: ignore[arg-type]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    return LanguageModel(model=model, tokenizer=fast)


@torch.no_grad()
def logits(model: LanguageModel) -> torch.Tensor:
    return model.model(input_ids=TOKENS).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_load_gives_back_what_was_saved(architecture: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = language_model(architecture, *[19] * LAYERS, dtype=dtype)
    export.save(model, tmp_path / "checkpoint")
    loaded = export.load(tmp_path / "checkpoint")
    assert not loaded.model.training and loaded.model.dtype == dtype
    weights = loaded.model.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in model.model.state_dict().items())
    if dtype == torch.float32:  # `.to(bfloat16)` also rounds the frequencies of the positions, which are no weights
        assert torch.equal(logits(loaded), logits(model))
    assert [block.units for block in mlp_blocks(loaded.model)] == [19] * LAYERS
    assert export.load(tmp_path / "checkpoint", dtype=torch.float64).model.dtype == torch.float64


def test_the_checkpoint_is_as_small_as_the_model(tmp_path: Path) -> None:
    model = language_model("olmo2", *[19] * LAYERS)
    export.save(model, tmp_path / "checkpoint")
    stored = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert sum(tensor.numel() for tensor in stored.values()) == model.model.num_parameters()
    assert not list((tmp_path / "checkpoint").glob("*.bin"))


def test_saving_again_replaces_all_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "checkpoint"
    export.save(language_model("llama"), folder)
    (folder / "left_over.txt").write_text("old")
    smaller = language_model("llama", 5, 5, 5)
    export.save(smaller, folder)
    assert not (folder / "left_over.txt").exists()
    assert torch.equal(logits(export.load(folder)), logits(smaller))
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model("llama")
    export.save(model, tmp_path / "checkpoint")
    broken = language_model("llama", 5, 5, 5)

    def full(folder: Path) -> None:
        (folder / "half").write_text("torn")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(broken.tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        export.save(broken, tmp_path / "checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert torch.equal(logits(export.load(tmp_path / "checkpoint")), logits(model))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint"):
        export.load(tmp_path / "nowhere")


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    export.save(language_model("llama"), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights.*layers\.1\.mlp\.up_proj"):
        export.load(tmp_path)
