"""Magnitude, Wanda and SparseGPT as llm-compressor computes them, kept as the numbers that Regraft must reproduce.

`make golden` runs this in llm-compressor's own environment. It reads `inputs/` and writes `llama.safetensors` and
`olmo2.safetensors`. The inputs are built only where they are missing: remove the folder to have them built again.
"""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the numbers are those of one thread of a CPU, wherever they are made
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
from llmcompressor import oneshot
from llmcompressor.core import EventType, create_session
from llmcompressor.modifiers.pruning import MagnitudePruningModifier, SparseGPTModifier, WandaPruningModifier
from loguru import logger
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

HERE = Path(__file__).parent
INPUTS = HERE / "inputs"
ARCHITECTURES = ("llama", "olmo2")
VOCABULARY = 64
SEQUENCES = 8
TOKENS = 32

METHODS: dict[str, tuple[type, dict[str, Any]]] = {
    "magnitude_50": (
        MagnitudePruningModifier,
        {
            "targets": ["re:.*_proj$"],
            "mask_structure": "unstructured",
            "init_sparsity": 0.5,
            "final_sparsity": 0.5,
            "start": 0,
            "end": 1,
            "update": 1,
        },
    ),
    "wanda_50": (WandaPruningModifier, {"mask_structure": "0:0"}),
    "wanda_2_4": (WandaPruningModifier, {"mask_structure": "2:4"}),
    "wanda_4_8": (WandaPruningModifier, {"mask_structure": "4:8"}),
    "sparsegpt_50": (SparseGPTModifier, {"mask_structure": "0:0", "block_size": 128, "dampening_frac": 0.01}),
    "sparsegpt_50_blocks": (SparseGPTModifier, {"mask_structure": "0:0", "block_size": 16, "dampening_frac": 0.1}),
    "sparsegpt_2_4": (SparseGPTModifier, {"mask_structure": "2:4", "block_size": 128, "dampening_frac": 0.01}),
    "sparsegpt_4_8_blocks": (SparseGPTModifier, {"mask_structure": "4:8", "block_size": 16, "dampening_frac": 0.01}),
}
for _, arguments in METHODS.values():
    if "final_sparsity" not in arguments:
        arguments.update(sparsity=0.5, targets=["Linear"], ignore=["re:.*lm_head"])


def build_inputs() -> None:
    """Two tiny models whose channels differ in scale and move together, and token ids that repeat.

    With equal, independent channels magnitude, Wanda and SparseGPT would hardly differ.
    """
    random = np.random.default_rng(20251)
    for architecture in ARCHITECTURES:
        config = AutoConfig.for_model(
            architecture,
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=None,
            tie_word_embeddings=False,
            dtype="float32",
        )
        tensors = {}
        for name, parameter in AutoModelForCausalLM.from_config(config).named_parameters():
            shape = tuple(parameter.shape)
            if len(shape) == 1:
                values = 1 + 0.2 * random.standard_normal(shape)
                values[random.choice(shape[0], size=2, replace=False)] *= 4
                if name in ("model.layers.0.input_layernorm.weight", "model.layers.1.post_attention_layernorm.weight"):
                    values[5] = 0  # in Llama: an input of q, k, v (or of gate, up) that is always zero
            else:
                rows, columns = shape
                values = random.standard_normal(shape)
                values *= np.exp(0.4 * random.standard_normal((rows, 1)))
                values *= np.exp(0.4 * random.standard_normal((1, columns)))
                values += np.outer(random.standard_normal(rows), random.standard_normal(columns))
                values *= 1.0 if "embed_tokens" in name else columns**-0.5
            tensors[name] = torch.from_numpy(values.astype(np.float32))
        folder = INPUTS / architecture
        config.save_pretrained(folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    frequency = 1 / (5 + np.arange(VOCABULARY))
    ids = random.choice(VOCABULARY, size=(SEQUENCES, TOKENS), p=frequency / frequency.sum())
    for position in range(1, TOKENS):
        repeats = random.random(SEQUENCES) < 0.3
        ids[repeats, position] = (ids[repeats, position - 1] + 1) % VOCABULARY
    (INPUTS / "calibration.json").write_text(json.dumps(ids.tolist()) + "\n", encoding="utf-8")


def calibration() -> DataLoader:
    ids = torch.tensor(json.loads((INPUTS / "calibration.json").read_text(encoding="utf-8")))
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]
    return DataLoader(rows, batch_size=1)


def magnitude(model: PreTrainedModel, arguments: dict[str, Any]) -> None:
    """`oneshot` leaves the weights as they are: this modifier writes its masks into them after an optimizer step."""
    with create_session() as session:
        session.initialize(model=model, recipe=MagnitudePruningModifier(**arguments))
        session.event(EventType.BATCH_START)
        session.event(EventType.OPTIM_POST_STEP)
        session.finalize()


def calibrated(model: PreTrainedModel, modifier: type, arguments: dict[str, Any]) -> None:
    unused = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"unknown": 0}, unk_token="unknown")))
    oneshot(
        model=model,
        processor=unused,  # asked for, though the calibration data are tokens
        dataset=calibration(),
        recipe=modifier(**arguments),
        pipeline="sequential",
    )


def pruned(architecture: str) -> dict[str, torch.Tensor]:
    """`method/module` -> what is kept (bool) if kept weights do not change, else the new weights (float32)."""
    found = {}
    for method, (modifier, arguments) in METHODS.items():
        model = AutoModelForCausalLM.from_pretrained(INPUTS / architecture, dtype=torch.float32).eval()
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        if modifier is MagnitudePruningModifier:
            magnitude(model, arguments)
        else:
            calibrated(model, modifier, arguments)
        for name, parameter in model.named_parameters():
            old, new = before[name], parameter.detach()
            if not name.endswith("_proj.weight"):
                assert torch.equal(old, new), f"{method} changed {name}"
                continue
            if modifier is SparseGPTModifier:
                kept = new.clone()
            else:
                kept = new != 0
                assert torch.equal(new, old * kept), f"{method} changed weights that it kept in {name}"
            found[f"{method}/{name.removesuffix('.weight')}"] = kept
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    logger.disable("llmcompressor")
    torch.set_num_threads(1)
    if not INPUTS.exists():
        build_inputs()
    for architecture in ARCHITECTURES:
        inputs = [*sorted((INPUTS / architecture).iterdir()), INPUTS / "calibration.json"]
        made_with = {
            "versions": {name: version(name) for name in ("llmcompressor", "torch", "transformers")},
            "inputs": {path.relative_to(HERE).as_posix(): sha256(path) for path in inputs},
            "methods": {
                method: {"modifier": modifier.__name__, "arguments": arguments}
                for method, (modifier, arguments) in METHODS.items()
            },
        }
        # one key: safetensors writes several in an order that changes from run to run
        metadata = {"made_with": json.dumps(made_with, sort_keys=True)}
        save_file(pruned(architecture), HERE / f"{architecture}.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
