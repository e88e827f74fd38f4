"""Every format is read again, in a process that has no Regraft, and says what the model said."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, VOCABULARY, tiny_model
from cutting import cut_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from regraft.interfaces import Exporter, LanguageModel
from regraft.models import export
from regraft.models.architecture import attention_blocks, mlp_blocks
from regraft.models.exporters.gguf import Gguf
from regraft.models.exporters.onnx import Onnx
from regraft.models.exporters.padded import Padded
from regraft.models.exporters.plain import Plain
from regraft.models.exporters.remote_code import RemoteCode
from regraft.models.padding import padded

TOKENS = torch.arange(3, 51).remainder(VOCABULARY).view(2, 24)
SHAPES = {"neurons": (19, 7, 30), "groups": (2, 1, 2)}
"""Neurons, and groups of keys and values, of the layers; of each a layer in the middle has fewer."""
TEXT = "how many legs has a spider? 8"


def tokenizer(ways: pre_tokenizers.PreTokenizer | None = None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = ways or pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


def language_model(architecture: str, **shapes) -> LanguageModel:
    words = tokenizer()
    special = {"bos_token_id": None, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    model = cut_model(architecture, vocab_size=len(words), **special, **shapes)
    return LanguageModel(model=model, tokenizer=words)


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


def read_again(program: str, folder: Path, *arguments: str) -> None:
    """Run `program` without Regraft: to import it is an error."""
    before = (
        "import json, sys\n"
        "sys.modules['regraft'] = None\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from safetensors.torch import load_file\n"
        "torch.set_num_threads(1)\n"
        f"tokens = torch.tensor({TOKENS.tolist()})\n"
        "folder, *names = sys.argv[1:]\n"
        "folder = Path(folder)\n"
        "def check(name, logits, atol):\n"
        "    torch.testing.assert_close(logits, load_file(folder / f'{name}.logits')['logits'], atol=atol, rtol=0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", before + program, str(folder), *arguments],
        cwd=folder,
        env=os.environ | {"HF_MODULES_CACHE": str(folder / "modules"), "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def write(exporter: Exporter, model: LanguageModel, folder: Path, name: str) -> Path:
    exporter.write(model, folder / name)
    save_file({"logits": logits(model.model)}, folder / f"{name}.logits")
    return folder / name


def test_every_format_is_read_without_regraft(tmp_path: Path) -> None:
    """One process for all: starting it is what takes long."""
    names = []
    for architecture in ARCHITECTURES:
        shapes = SHAPES | ({"groups": (4, 1, 3)} if architecture == "gpt2" else {})
        model = language_model(architecture, **shapes)
        even = language_model(architecture, neurons=(19, 19, 19))
        for exporter, written in ((Plain(), even), (Padded(), model), (RemoteCode(), model)):
            names.append(f"{type(exporter).__name__}-{architecture}")
            write(exporter, written, tmp_path, names[-1])
    for architecture in ("llama", "qwen3", "olmo2"):
        for weights in ("float32", "float16"):
            names.append(f"Gguf-{architecture}-{weights}")
            write(Gguf(weights=weights), language_model(architecture, **SHAPES), tmp_path, names[-1])  # type: ignore[arg-type]
    program = """
import gguf
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
def of_olmo2(folder):
    # transformers reads no OLMo2 from these files, so their tensors are read by name
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(folder / "model.gguf").tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.OLMO2, 3)
    for name, parameter in model.named_parameters():
        place, _, leaf = name.rpartition(".")
        tensor = found.pop(names.get_name(place) + "." + leaf)
        data = gguf.dequantize(tensor.data, tensor.tensor_type)
        parameter.data.copy_(torch.from_numpy(data.copy()).view(parameter.shape))
    assert not found, list(found)
    return model
for name in names:
    kind, architecture, *weights = name.split("-")
    settings = {}
    if name == "RemoteCode-llama":
        try:
            AutoModelForCausalLM.from_pretrained(folder / name, trust_remote_code=False)
        except (RuntimeError, ValueError):
            pass
        else:
            raise AssertionError(f"{name} loads without its own code")
    if kind == "RemoteCode":
        settings = {"trust_remote_code": True}
    if kind == "Gguf":
        # the file has no place for all of Qwen3's numbers: transformers reads them from config.json
        settings = {"gguf_file": "model.gguf", "config": AutoConfig.from_pretrained(folder / name)}
    if kind == "Gguf" and architecture == "olmo2":
        model = of_olmo2(folder / name)
    else:
        model, info = AutoModelForCausalLM.from_pretrained(folder / name, output_loading_info=True, **settings)
        assert kind == "Gguf" or not any(info.values()), (name, info)
    with torch.no_grad():
        check(name, model.eval()(input_ids=tokens).logits, 2e-2 if weights == ["float16"] else 1e-5)
        stepped = model(input_ids=tokens[:, -1:], past_key_values=model(input_ids=tokens[:, :-1]).past_key_values)
        check(name, torch.cat([load_file(folder / f"{name}.logits")["logits"][:, :-1], stepped.logits], 1),
            2e-2 if weights == ["float16"] else 1e-5)
    if kind != "Gguf":
        assert model.generate(tokens[:1], max_new_tokens=2, do_sample=False).shape[1] > 24
        assert len(AutoTokenizer.from_pretrained(folder / name)("how many legs").input_ids) == 3
    if kind == "Gguf" and architecture == "llama":
        text = "how many legs has a spider? 8"
        beside = AutoTokenizer.from_pretrained(folder / name)
        inside = AutoTokenizer.from_pretrained(folder / name, gguf_file="model.gguf")
        assert inside(text).input_ids == beside(text).input_ids
"""
    read_again(program, tmp_path, *names)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_saved_with_its_own_code_is_read_again_without_running_it(architecture: str, tmp_path: Path) -> None:
    model = language_model(architecture, **SHAPES)
    folder = write(RemoteCode(), model, tmp_path, "checkpoint")
    (folder / export.CODE).write_text("raise SystemExit('this code was run')")
    loaded = export.load(folder)
    assert torch.equal(logits(loaded.model), logits(model.model)) and type(loaded.model) is type(model.model)
    assert [block.units for block in mlp_blocks(loaded.model)] == [19, 7, 30]
    assert loaded.model.config.to_dict().keys() <= model.model.config.to_dict().keys() | {"head_dim"}
    # and can be cut, and saved, again
    again = write(RemoteCode(), loaded, tmp_path, "again")
    assert torch.equal(logits(export.load(again).model), logits(model.model))


def test_a_checkpoint_with_its_own_code_is_as_small_as_the_model(tmp_path: Path) -> None:
    model = language_model("olmo2", **SHAPES)
    small = load_file(write(RemoteCode(), model, tmp_path, "small") / "model.safetensors")
    assert sum(tensor.numel() for tensor in small.values()) == model.model.num_parameters()
    code = (tmp_path / "small" / export.CODE).read_text(encoding="utf-8")
    assert "regraft" not in code and code.count("\n") < 60


def test_neurons_by_layer_are_where_transformers_will_look(tmp_path: Path) -> None:
    folder = write(RemoteCode(), language_model("llama", neurons=(19, 7, 30)), tmp_path, "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    found = {int(layer): widths["intermediate_size"] for layer, widths in config["per_layer_config"].items()}
    assert found == {0: 19, 1: 7} and config["intermediate_size"] == 30


def test_padding_says_what_it_costs_and_an_even_model_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = language_model("llama", neurons=(10, 20, 30))
    with caplog.at_level(logging.INFO):
        folder = write(Padded(), model, tmp_path, "padded")
    more = 32 * 3 * (20 + 10)
    assert f"{model.model.num_parameters():,} parameters are written as {model.model.num_parameters() + more:,}" in (
        caplog.text
    )
    assert json.loads((folder / "config.json").read_text())["intermediate_size"] == 30
    even = language_model("llama", neurons=(19, 19, 19))
    assert padded(even.model) is even.model
    write(Padded(), even, tmp_path, "even")
    write(Plain(), even, tmp_path, "plain")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "even" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_norm_over_all_heads_sees_what_it_saw_also_of_small_queries() -> None:
    """Of queries near zero the norm's epsilon is felt: to scale its weight alone would not be enough."""
    model = cut_model("olmo2", groups=(2, 1, 2))
    for attention in attention_blocks(model):
        attention.query.module.weight.data.mul_(1e-3)  # type: ignore[union-attr]
        attention.key.module.weight.data.mul_(1e-3)  # type: ignore[union-attr]
    assert model.config.rms_norm_eps >= 1e-5
    torch.testing.assert_close(logits(padded(model)), logits(model), atol=1e-5, rtol=0)


def test_a_norm_of_another_kind_is_not_padded() -> None:
    model = cut_model("olmo2", groups=(2, 1, 2))
    model.model.layers[1].self_attn.q_norm = torch.nn.LayerNorm(16)
    with pytest.raises(ValueError, match=r"q_norm \(LayerNorm\).*remote_code"):
        padded(model)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_number_of_heads_that_the_config_forbids(architecture: str, tmp_path: Path) -> None:
    """Three heads do not divide 32 channels: their plain form does not exist, though all layers are alike."""
    model = language_model(architecture, groups=(3, 3, 3), num_key_value_heads=4)
    with pytest.raises(ValueError, match="export=plain"):
        Plain().write(model, tmp_path / "plain")
    for exporter in (Padded(), RemoteCode()):
        folder = write(exporter, model, tmp_path, type(exporter).__name__)
        torch.testing.assert_close(logits(export.load(folder).model), logits(model.model), atol=1e-5, rtol=0)


def test_a_bias_that_the_architecture_does_not_know_is_kept_by_its_own_code_only(tmp_path: Path) -> None:
    """What is added to make up for removed neurons."""
    model = language_model("llama")
    for block in mlp_blocks(model.model):
        block.down.module.bias = torch.nn.Parameter(torch.randn(32))
    with pytest.raises(ValueError, match=r"export=plain.*down_proj\.bias 32.*remote_code"):
        Plain().write(model, tmp_path / "plain")
    with pytest.raises(ValueError, match=r"export=padded.*down_proj\.bias"):
        Padded().write(model, tmp_path / "padded")
    folder = write(RemoteCode(), model, tmp_path, "own")
    assert torch.equal(logits(export.load(folder).model), logits(model.model))


def test_different_widths_have_no_plain_form_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mlp\.gate_proj\.weight 19x32.*export=padded.*export=remote_code"):
        Plain().write(language_model("llama", neurons=(19, 19, 20)), tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())


def test_zeros_within_matrices_stay(tmp_path: Path) -> None:
    model = language_model("llama")
    mask = torch.rand(48, 32) < 0.5
    model.model.model.layers[0].mlp.up_proj.weight.data.mul_(mask)
    folder = write(Plain(), model, tmp_path, "checkpoint")
    stored = load_file(folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(stored != 0, mask)


@pytest.mark.parametrize(
    ("architecture", "overrides", "reason"),
    [
        ("gemma3", {}, "writes llama, olmo2, qwen3, not gemma3_text"),
        ("gpt2", {}, "writes llama, olmo2, qwen3, not gpt2"),
        ("llama", {"hidden_act": "gelu"}, "silu, not gelu"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "linear"),
    ],
)
def test_gguf_refuses_what_it_cannot_tell(architecture: str, overrides: dict, reason: str, tmp_path: Path) -> None:
    model = LanguageModel(model=tiny_model(architecture, **overrides), tokenizer=tokenizer())
    with pytest.raises(ValueError, match=f"export=gguf: .*{reason}"):
        Gguf().write(model, tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())


def test_gguf_refuses_weights_that_float16_cannot_hold(tmp_path: Path) -> None:
    model = language_model("llama")
    model.model.model.layers[2].mlp.up_proj.weight.data[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"blk\.2\.ffn_up\.weight is too large"):
        Gguf(weights="float16").write(model, tmp_path / "checkpoint")
    Gguf().write(model, tmp_path / "checkpoint")


def test_how_words_are_cut_is_told_or_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from gguf import GGUFReader

    digits = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    plain, odd = pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Punctuation()
    other = pre_tokenizers.Sequence([odd, plain])
    cases = {"gpt-2": plain, "smollm": digits, "default": other, None: odd}
    for way, cutter in cases.items():
        caplog.clear()
        model = LanguageModel(model=tiny_model("llama", vocab_size=300), tokenizer=tokenizer(cutter))
        Gguf().write(model, tmp_path / "file")
        reader = GGUFReader(tmp_path / "file" / "model.gguf")
        field = reader.get_field("tokenizer.ggml.pre")
        assert (field and field.contents()) == way
        assert bool(caplog.records) == (way in ("default", None))
        tokens = reader.get_field("tokenizer.ggml.tokens")
        assert way is None or len(tokens.contents()) == 300  # type: ignore[union-attr]
        ends = reader.get_field("tokenizer.ggml.eos_token_id")
        assert way is None or ends.contents() == model.tokenizer.eos_token_id  # type: ignore[union-attr]


@pytest.mark.slow
def test_llama_cpp_reads_the_file(tmp_path: Path) -> None:
    """The program that the format is for, on text that it cuts into tokens itself."""
    pytest.importorskip("xllamacpp")
    for architecture, tied in itertools.product(("llama", "qwen3", "olmo2"), (False, True)):
        model = language_model(architecture, tie_word_embeddings=tied, **SHAPES)
        folder = write(Gguf(), model, tmp_path, architecture)
        program = f"""
import json, os, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path = {str(folder / "model.gguf")!r}
settings.n_ctx, settings.n_parallel, settings.warmup = 128, 1, False
settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
ask = {{"prompt": {TEXT!r}, "max_tokens": 1, "temperature": 0, "logprobs": 400, "n_probs": 400, "ignore_eos": True,
    "logit_bias": [[65, 100]]}}
answer = xllamacpp.Server(settings).handle_completions(ask)
answer = answer if isinstance(answer, dict) else json.loads(answer)
found = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
print("answer", json.dumps([answer["usage"]["prompt_tokens"], found]))
sys.stdout.flush()
os._exit(0)
"""
        done = subprocess.run(
            [sys.executable, "-c", "import sys\n" + program], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("answer")]
        number, found = json.loads(line.removeprefix("answer"))
        tokens = model.tokenizer(TEXT, return_tensors="pt").input_ids
        assert number == tokens.shape[1]
        with torch.no_grad():
            said = model.model(input_ids=tokens).logits[0, -1].log_softmax(-1)
        assert len(found) == len(said)
        for each in found:
            assert each["logprob"] == pytest.approx(float(said[each["id"]]), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_onnx_says_the_same_at_any_length(architecture: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    write(Onnx(), language_model(architecture, **SHAPES), tmp_path, architecture)
    program = """
import onnxruntime
(name,) = names
graph = onnxruntime.InferenceSession(folder / name / "model.onnx", providers=["CPUExecutionProvider"])
def say(tokens):
    return torch.from_numpy(graph.run(["logits"], {"input_ids": tokens.numpy()})[0])
check(name, say(tokens), 1e-5)
for length in (1, 7, 20):
    # what comes later does not count
    torch.testing.assert_close(say(tokens[:1, :length]), say(tokens)[:1, :length], atol=1e-5, rtol=0)
"""
    read_again(program, tmp_path, architecture)
    assert not list(tmp_path.glob(f"{architecture}/*.safetensors"))
