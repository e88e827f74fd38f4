from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pytest
import torch

from regraft.cache import Cache
from regraft.config.ranges import ConfigError
from regraft.models.pretrained import Pretrained
from regraft.sources.base import SourceError
from regraft.sources.gguf import DequantizedGguf
from regraft.sources.wheel import WheelMembers

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

MEMBER = "tiny/tiny.gguf"
WHEEL = WheelMembers(requirement="tiny==1.0", members=(MEMBER,), sha256="0" * 64)
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tiny_llama() -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    return LlamaForCausalLM(config).eval()


def interleaved(weight: numpy.ndarray[Any, Any], heads: int) -> numpy.ndarray[Any, Any]:
    """GGUF keeps the two halves of a rotary pair side by side; transformers keeps them half a head apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(model: LlamaForCausalLM, file: Path) -> dict[str, torch.Tensor]:
    """Write `model` with 4-bit projections; returns its weights as a reader of the file should see them."""
    import gguf
    from gguf import quants
    from tokenizers.pre_tokenizers import ByteLevel

    config = model.config
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    space, newline = "\u0120", "\u010a"
    tokens = ["<unk>", "<s>", "</s>", *sorted(ByteLevel.alphabet()), newline * 2]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges([f"{newline} {newline}"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    assert len(tokens) == config.vocab_size and space in tokens
    seen = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        array = weight.numpy()
        if name.startswith("model.layers."):
            number, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            target = f"blk.{number}.{NAMES[part]}.weight"
        else:
            target = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
        if array.ndim == 1 or "embed" in name:
            writer.add_tensor(target, array)
            seen[name] = weight
            continue
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        turned = "q_proj" in name or "k_proj" in name
        number_of_heads = heads["q" if "q_proj" in name else "k"]
        stored = interleaved(array, number_of_heads) if turned else array
        kind = gguf.GGMLQuantizationType.Q4_1
        packed = quants.quantize(numpy.ascontiguousarray(stored), kind)
        writer.add_tensor(target, packed, raw_dtype=kind)
        # rows are quantised on their own, so the order of rows does not matter to what comes back
        seen[name] = torch.from_numpy(quants.dequantize(quants.quantize(array, kind), kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return seen


def test_round_trip(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / MEMBER).parent.mkdir()
    original = tiny_llama()
    seen = write_gguf(original, tmp_path / MEMBER)
    monkeypatch.setattr(WheelMembers, "fetch", lambda self, cache: tmp_path)
    source = DequantizedGguf(wheel=WHEEL)
    loaded = Pretrained(name="tiny", source=source).load(cache)
    assert capfd.readouterr().err == ""

    state = loaded.model.state_dict()
    for name, weight in seen.items():
        torch.testing.assert_close(state[name], weight, rtol=0, atol=0, msg=name)
    original.load_state_dict(seen | {"lm_head.weight": seen["model.embed_tokens.weight"]})
    tokens = torch.arange(30)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(tokens).logits, original(tokens).logits, rtol=0, atol=1e-5)

    config = loaded.model.config
    assert loaded.model.dtype == torch.float32
    assert config.rms_norm_eps == 1e-5
    assert not hasattr(config, "quantization_config")
    assert loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
    loaded.model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").is_file()
    # a digit is cut off before words are: the two line ends before it stay one token
    assert loaded.tokenizer.tokenize("a\n\n1") == ["a", "\u010a\u010a", "1"]
    assert loaded.tokenizer("a b").input_ids == [
        loaded.tokenizer.convert_tokens_to_ids(t) for t in ("a", "\u0120", "b")
    ]

    monkeypatch.setattr(WheelMembers, "fetch", lambda self, cache: pytest.fail("fetched again"))
    assert source.fetch(cache).is_dir()


def test_file_that_is_no_gguf(tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / MEMBER).parent.mkdir()
    (tmp_path / MEMBER).write_bytes(b"GGUX" * 100)
    monkeypatch.setattr(WheelMembers, "fetch", lambda self, cache: tmp_path)
    with pytest.raises(SourceError, match="wheel:tiny==1.0!tiny/tiny.gguf: transformers cannot dequantise it"):
        DequantizedGguf(wheel=WHEEL).fetch(cache)
    assert [path for path in cache.root.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize("members", [("a.gguf", "b.gguf"), ("a.safetensors",)])
def test_one_gguf_file_is_wanted(members: tuple[str, ...]) -> None:
    wheel = WheelMembers(requirement="tiny==1.0", members=members, sha256="0" * 64)
    with pytest.raises(ConfigError, match=r"wheel\.members=.*must be the path of one \.gguf file"):
        DequantizedGguf(wheel=wheel)
