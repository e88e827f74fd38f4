"""Every export format of one model: how large it is, and how far it says something else when it is read again.

    python -m benchmarks.export CHECKPOINT

CHECKPOINT is a folder that `save_model=true` wrote, of a format that transformers loads. Each format is read in a
process of its own, without Regraft: the checkpoints by transformers, GGUF by llama.cpp if the package xllamacpp is
there, ONNX by onnxruntime. The numbers that are compared are log-probabilities of the next token after each prompt.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from regraft.interfaces import Exporter, LanguageModel
from regraft.models import export
from regraft.models.exporters.gguf import Gguf
from regraft.models.exporters.onnx import Onnx
from regraft.models.exporters.padded import Padded
from regraft.models.exporters.plain import Plain
from regraft.models.exporters.remote_code import RemoteCode

PROMPTS = (
    "Question: Where do you put a plate after washing it?\nAnswer:",
    "The old man went down to the sea with 12 nets, 3 hooks and",
    "Water boils at a hundred degrees, and freezes at",
    "A.",
)

TRANSFORMERS = """
import json, sys, torch
sys.modules["regraft"] = None
from transformers import AutoModelForCausalLM
folder, prompts = sys.argv[1], json.loads(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code={trust}).eval()
with torch.no_grad():
    said = [model(input_ids=torch.tensor([tokens])).logits[0, -1].log_softmax(-1).tolist() for tokens in prompts]
print("said " + json.dumps(said))
"""
ONNXRUNTIME = """
import json, sys, numpy, onnxruntime
folder, prompts = sys.argv[1], json.loads(sys.argv[2])
graph = onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
said = []
for tokens in prompts:
    logits = graph.run(["logits"], {"input_ids": numpy.array([tokens])})[0][0, -1].astype(numpy.float64)
    said.append((logits - numpy.logaddexp.reduce(logits)).tolist())
print("said " + json.dumps(said))
"""
LLAMA_CPP = """
import json, os, sys, xllamacpp
folder, prompts = sys.argv[1], json.loads(sys.argv[2])
settings = xllamacpp.CommonParams()
settings.model.path = folder + "/model.gguf"
settings.n_ctx, settings.n_parallel, settings.warmup = 256, 1, False
settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server, said = xllamacpp.Server(settings), []
for tokens in prompts:
    # a token that is no whole character would be told together with the next one: an ASCII letter is forced
    answer = server.handle_completions({"prompt": tokens, "max_tokens": 1, "temperature": 0, "n_probs": 1000000,
        "logprobs": 1000000, "cache_prompt": False, "logit_bias": [[%d, 100]]})
    answer = answer if isinstance(answer, dict) else json.loads(answer)
    told = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    said.append([each["logprob"] for each in sorted(told, key=lambda each: each["id"])])
print("said " + json.dumps(said))
sys.stdout.flush()
os._exit(0)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    model = export.load(parser.parse_args().checkpoint)
    prompts = [model.tokenizer(prompt).input_ids for prompt in PROMPTS]
    expected = _said(model, prompts)
    letter = model.tokenizer("a", add_special_tokens=False).input_ids[0]
    of_llama_cpp = LLAMA_CPP % letter
    formats: dict[str, tuple[Exporter, str, str]] = {
        "plain": (Plain(), TRANSFORMERS.format(trust=False), "transformers"),
        "padded": (Padded(), TRANSFORMERS.format(trust=False), "transformers"),
        "remote_code": (RemoteCode(), TRANSFORMERS.format(trust=True), "transformers"),
        "gguf": (Gguf(), of_llama_cpp, "xllamacpp"),
        "gguf, float16": (Gguf(weights="float16"), of_llama_cpp, "xllamacpp"),
        "onnx": (Onnx(), ONNXRUNTIME, "onnxruntime"),
    }
    sys.stdout.write(f"{model.model.num_parameters():,} parameters in {model.model.dtype}\n")
    for name, (exporter, program, library) in formats.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                exporter.write(model, Path(folder) / "model")
            except ValueError as error:
                sys.stdout.write(f"{name:14} refused: {error}\n")
                continue
            size = sum(file.stat().st_size for file in (Path(folder) / "model").rglob("*") if file.is_file())
            if importlib.util.find_spec(library) is None:
                told = f"not read: {library} is not installed"
            else:
                told = f"{_largest(expected, _read(program, folder, prompts)):.1e} away, read by {library}"
            sys.stdout.write(f"{name:14} {size / 1e6:8.1f} MB  {told}\n")
            sys.stdout.flush()


def _said(model: LanguageModel, prompts: list[list[int]]) -> list[list[float]]:
    import torch

    with torch.no_grad():
        logits = [model.model(input_ids=torch.tensor([tokens])).logits[0, -1] for tokens in prompts]
    return [each.float().log_softmax(-1).tolist() for each in logits]


def _read(program: str, folder: str, prompts: list[list[int]]) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program, f"{folder}/model", json.dumps(prompts)],
        env=os.environ | {"HF_MODULES_CACHE": f"{folder}/modules"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("said ")]
    if not said:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(said[0].removeprefix("said "))


def _largest(expected: list[list[float]], found: list[list[float]]) -> float:
    pairs = zip(expected, found, strict=True)
    return max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
