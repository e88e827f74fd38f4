"""What the calibration of Wanda costs beside the forward passes that it needs.

    python -m benchmarks.calibration --rounds 9

A model in the shape of Llama with random weights, 106 M parameters, reads one padded batch of made-up questions: bare,
with statistics of what every linear map of its layers is fed (Wanda of single weights), and of what the maps that read
neurons and heads are fed (Wanda of those). They take turns, so that whatever else the machine does falls on all alike;
the ratios are of the medians. The bare passes compute the logits of the last positions only: the least they can do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from regraft.environment import describe
from regraft.interfaces import Batch, Calibration, EncodedQuestion, LanguageModel, Loss, LossValue, ModelOutputs
from regraft.models.architecture import attention_blocks, is_linear, mlp_blocks
from regraft.models.forward import forward
from regraft.pruning.activations import input_statistics
from regraft.tasks.packing import move, pack

VOCABULARY = 32_000
SHAPE = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 12}
"""With embedding and head 106 M parameters."""


class MadeUp(Calibration):
    """One batch of questions of half to all of `tokens` tokens."""

    def __init__(self, questions: int, tokens: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(tokens // 2, tokens + 1, (questions,), generator=generator).tolist()
        encoded = [
            EncodedQuestion(
                id=str(number),
                context=tuple(torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()),
                choices=((5, 6), (7, 8)),
            )
            for number, length in enumerate(lengths)
        ]
        packed = pack(encoded, reads="choices", positions="answer", pad_token_id=0, labelled=False)
        self.batch = move(packed, device)

    def batches(self, loss: Loss | None = None) -> Iterator[Batch]:
        yield self.batch

    def forward(self, model: LanguageModel, batch: Batch) -> ModelOutputs:
        return forward(model.model, batch)

    def value(self, model: LanguageModel, loss: Loss, batch: Batch) -> LossValue:
        raise AssertionError("no loss is needed here")

    def train(self, *arguments: object, **named: object) -> None:
        raise AssertionError("nothing is trained here")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a line for each arm and one of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="measured passes of each arm; two more warm it up")
    parser.add_argument("--questions", type=int, default=4, help="of the batch")
    parser.add_argument("--tokens", type=int, default=128, help="of the longest question")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: of a machine that others use too"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    clock = time.perf_counter if given.clock == "wall" else time.process_time
    torch.manual_seed(0)
    device = torch.device(given.device)
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, **SHAPE)
    built = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval().to(device)
    model = LanguageModel(model=built, tokenizer=None)  # type: ignore[arg-type]
    questions = MadeUp(given.questions, given.tokens, device)

    def observed(modules: list[nn.Module]) -> Callable[[], None]:
        return lambda: input_statistics(model, questions, modules) and None

    @torch.no_grad()
    def bare() -> None:
        questions.forward(model, questions.batch)

    layers = [module for name, module in built.named_modules() if is_linear(module) and ".layers." in name]
    readers = [block.down.module for block in mlp_blocks(built)]
    readers += [block.output.module for block in attention_blocks(built)]
    arms = {"bare": bare, "every linear map": observed(layers), "down and output": observed(readers)}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(given.rounds + 2):
        for name, work in arms.items():
            started = clock()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(clock() - started)
    medians = {name: statistics.median(taken[2:]) for name, taken in seconds.items()}
    for name, median in medians.items():
        sys.stdout.write(f"{name:<20} {1000 * median:8.1f} ms a batch   {median / medians['bare']:.3f} of bare\n")
    told = {"median_seconds": medians, "parameters": built.num_parameters(), "arguments": vars(given)}
    sys.stdout.write(json.dumps(told | describe(device)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
