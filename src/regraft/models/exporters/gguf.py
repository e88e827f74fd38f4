"""A GGUF file, for llama.cpp and what is built on it.

The names of the tensors are those of the `gguf` package; what llama.cpp wants otherwise than transformers is here. Of
Llama the rows of queries and keys change places, since llama.cpp rotates neighbouring channels and transformers halves
(llama.cpp, convert_hf_to_gguf.py, `LlamaModel.permute`).
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from regraft.interfaces import Exporter, LanguageModel

if TYPE_CHECKING:
    import torch
    from gguf import GGUFWriter
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

ARCHITECTURES = ("llama", "olmo2", "qwen3")
"""Types of models whose numbers all have a place in the file."""
ROTATED = "llama"
"""The one whose queries and keys llama.cpp wants in another order."""
HEAD_NEEDED = "olmo2"
"""The one whose head llama.cpp wants in the file even if it is tied to the embedding; the others then go without."""
WORD_CUTS = {"\\p{N}{1,3}": "dbrx", "\\p{N}|": "qwen2"}
"""Part of the expression by which a tokenizer cuts words -> llama.cpp's name of that way."""
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Types of tokens (`gguf.TokenType`)."""


@dataclass(frozen=True, kw_only=True)
class Gguf(Exporter):
    """`model.gguf` with weights and tokenizer, unquantised: `llama-quantize` goes on from there.

    A model with layers of different widths is filled up with zeros: the file may list a width for each layer, but
    llama.cpp gives all layers of these architectures the first one. config.json and the tokenizer's files lie beside.
    """

    file: ClassVar[str] = "model.gguf"

    weights: Literal["float32", "float16"] = "float32"
    """Format of the matrices; norms and biases stay in float32. float32 loses nothing."""

    def write(self, model: LanguageModel, folder: Path) -> None:
        from gguf import GGUFWriter, LlamaFileType

        from regraft.models import export
        from regraft.models.exporters.padded import filled

        model = filled(model)
        _check(model.model)
        with export.written(folder) as aside:
            config: Any = model.model.config
            writer = GGUFWriter(aside / self.file, config.model_type)
            writer.add_type("model")
            full = self.weights == "float32"
            writer.add_file_type(LlamaFileType.ALL_F32 if full else LlamaFileType.MOSTLY_F16)
            _add_numbers(writer, model.model)
            _add_tokenizer(writer, model.tokenizer, config.vocab_size)
            for name, tensor in _tensors(model.model):
                kept = tensor.float() if full or tensor.ndim == 1 else tensor.half()
                if not bool(kept.isfinite().all()):
                    raise ValueError(
                        f"export.weights=float16: {name} is too large for it. Choose export.weights=float32."
                    )
                writer.add_tensor(name, kept.cpu().contiguous().numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            config.save_pretrained(aside)
            model.tokenizer.save_pretrained(aside)


def _check(model: PreTrainedModel) -> None:
    """Refuse what the file cannot tell.

    Raises:
        ValueError: With the reason.
    """
    config: Any = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    told = "Choose export=plain, padded or remote_code."
    if config.model_type not in ARCHITECTURES:
        raise ValueError(
            f"export=gguf: writes {', '.join(ARCHITECTURES)}, not {config.model_type}, of which a file would not hold "
            f"every number that the model is computed from. {told}"
        )
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"export=gguf: scaled rotary positions ({rope['rope_type']}) are not written. {told}")
    if config.hidden_act != "silu":
        raise ValueError(
            f"export=gguf: llama.cpp computes {config.model_type} with silu, not {config.hidden_act}. {told}"
        )


def _add_numbers(writer: GGUFWriter, model: PreTrainedModel) -> None:
    from regraft.models.architecture import attention_blocks, mlp_blocks

    config: Any = model.config
    attention, mlp = attention_blocks(model)[0], mlp_blocks(model)[0]
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(mlp.units)
    writer.add_head_count(attention.heads)
    writer.add_head_count_kv(attention.key_value_heads)
    writer.add_key_length(attention.head_dim)
    writer.add_value_length(attention.head_dim)
    writer.add_rope_dimension_count(attention.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _tensors(model: PreTrainedModel) -> list[tuple[str, torch.Tensor]]:
    """Each weight by the file's name."""
    import gguf

    from regraft.models.architecture import attention_blocks

    config: Any = model.config
    (architecture,) = [key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    heads: dict[Any, int] = {}
    for block in attention_blocks(model) if config.model_type == ROTATED else ():
        assert block.query is not None and block.key is not None
        heads |= {block.query.module: block.heads, block.key.module: block.key_value_heads}
    tensors = []
    for name, parameter in model.named_parameters():
        place, _, leaf = name.rpartition(".")
        to = names.get_name(place)
        if to is None:
            raise ValueError(f"export=gguf: {config.model_type} files have no place for {name}. Choose another export.")
        tensor = parameter.detach()
        number = heads.get(model.get_submodule(place))
        tensors.append((f"{to}.{leaf}", tensor if number is None else _neighbours(tensor, number)))
    if config.tie_word_embeddings and config.model_type == HEAD_NEEDED:
        tensors.append(("output.weight", model.get_output_embeddings().weight.detach()))
    return tensors


def _neighbours(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """In each head the rows of the two halves in turn."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _add_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """The vocabulary, if it is a byte-level BPE one; other tokenizers stay beside the file only."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    plain = {} if backend is None else json.loads(backend.to_str())
    way = _way_of_cutting(plain.get("pre_tokenizer") or {})
    if plain.get("model", {}).get("type") != "BPE" or way is None:
        log.warning(
            "The tokenizer is no byte-level BPE: %s holds the weights alone, for programs that bring their own tokens.",
            Gguf.file,
        )
        writer.add_tokenizer_model("no_vocab")
        return
    if way == "default":
        log.warning(
            "llama.cpp may cut words otherwise than this tokenizer: compare its tokens with those of transformers."
        )
    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [UNUSED] * size
    added = {token["id"]: token for token in plain["added_tokens"]}
    for token, number in tokenizer.get_vocab().items():
        tokens[number] = token
        types[number] = NORMAL if number not in added else CONTROL if added[number]["special"] else USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(way)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in plain["model"]["merges"]])
    for number, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id])


def _way_of_cutting(cutter: dict[str, Any]) -> str | None:
    """llama.cpp's name of how a tokenizer cuts text before it merges; None: it is not by bytes."""
    steps = cutter.get("pretokenizers", [cutter])
    kinds = [step.get("type") for step in steps]
    if "ByteLevel" not in kinds:
        return None
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    expression = str(steps[0].get("pattern", {}).get("Regex", ""))
    return next((way for part, way in WORD_CUTS.items() if part in expression), "default")
