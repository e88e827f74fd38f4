"""What scoring by L2 and removing half of the units costs, against reading the model's weights once.

    python -m benchmarks.pruning_speed
    python -m benchmarks.pruning_speed --dtype float32 --layers 4 --threads 2

The model has the shape of OLMo2-1B (hidden 2048, intermediate 8192, 16 layers, 16 heads, vocabulary 100352) and random
weights, so nothing is fetched. "Reading its weights once" is one pass over all parameters, those that the structure
leaves alone as well, that takes every weight as the float32 number that it stands for: the sum of |w|, by torch, in
blocks that stay in the processor's cache. The limit is meant by this reading, by the wall clock and by the processor's
time. For comparison the sum of all bytes as integers is printed too: as fast as memory hands them over, but it asks
nothing of a weight as a number. Pruning also writes what is left of the matrices, which no reading does.

All take turns, round by round, so that whatever else the machine does falls on all alike; the ratios are of the
medians, the spread is from the fastest round to the slowest. A round prunes a copy of the model that nobody else
holds, as a run does: so memory of what was cut can take up what is left of the next matrix. Both models must fit.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from transformers import Olmo2Config, Olmo2ForCausalLM, PreTrainedModel

from regraft.environment import describe
from regraft.interfaces import LanguageModel, PruningContext, Structure
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.criteria.l2 import L2
from regraft.pruning.criteria.norms import BLOCK
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.kv_groups import KvGroups
from regraft.pruning.structures.mlp_neurons import MlpNeurons

STRUCTURES: dict[str, Structure] = {"mlp_neurons": MlpNeurons(), "kv_groups": KvGroups()}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SUM, BYTES = "sum of |w|", "sum of all bytes"
"""Reading the weights once, and the least that reading could mean."""
LIMIT = 3.0
"""Times the sum of |w| that pruning may take, by either clock."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a line for each clock and work and one of JSON; 1 if a structure is slower than the limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruning_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds; one more warms up")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    model = olmo2_1b(getattr(torch, given.dtype), given.layers)
    work: dict[str, Callable[[], Callable[[], object]]] = {
        SUM: lambda: lambda: read(model),
        BYTES: lambda: lambda: touch(model),
    }
    work |= {name: lambda structure=structure: pruning(model, structure) for name, structure in STRUCTURES.items()}
    seconds: dict[str, dict[str, list[float]]] = {name: {clock: [] for clock in CLOCKS} for name in work}
    for _ in range(given.rounds + 1):
        for name, prepare in work.items():
            run = prepare()
            started = {clock: now() for clock, now in CLOCKS.items()}
            run()
            for clock, now in CLOCKS.items():
                seconds[name][clock].append(now() - started[clock])
    slowest = 0.0
    for clock in CLOCKS:
        rounds = {name: taken[clock][1:] for name, taken in seconds.items()}
        medians = {name: statistics.median(taken) for name, taken in rounds.items()}
        for name, taken in rounds.items():
            spread = f"{1000 * min(taken):7.0f} to {1000 * max(taken):5.0f} ms"
            told = "   ".join(f"{medians[name] / medians[reading]:6.2f} x {reading}" for reading in (SUM, BYTES))
            sys.stdout.write(f"{clock:<5} {name:<16} {1000 * medians[name]:7.0f} ms, {spread}   {told}\n")
        slowest = max(slowest, *(medians[name] / medians[SUM] for name in STRUCTURES))
    about = {
        "dtype": given.dtype,
        "layers": given.layers,
        "parameters": model.num_parameters(),
        "seconds": seconds,
    }
    sys.stdout.write(json.dumps(about | describe(torch.device("cpu"))) + "\n")
    return int(slowest > LIMIT)


def olmo2_1b(dtype: torch.dtype, layers: int) -> PreTrainedModel:
    """A model of OLMo2-1B's shape with random weights."""
    config = Olmo2Config(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        vocab_size=100352,
        pad_token_id=None,
    )
    with torch.device("meta"):
        model = Olmo2ForCausalLM(config).to(dtype)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02, generator=generator)
    return model.eval()


@torch.no_grad()
def read(model: PreTrainedModel) -> float:
    """The sum of |w| over all weights in float32, block by block: the least that can be asked of each weight."""
    flat = (parameter.view(-1) for parameter in model.parameters())
    return sum(float(block.float().abs().sum()) for weights in flat for block in weights.split(BLOCK))


@torch.no_grad()
def touch(model: PreTrainedModel) -> int:
    """The sum of all bytes, eight at a time as one integer: as fast as memory hands them over."""
    return sum(int(parameter.view(-1).view(torch.int64).sum()) for parameter in model.parameters())


def pruning(model: PreTrainedModel, structure: Structure) -> Callable[[], object]:
    """What prunes half of the units of a copy of `model`."""
    smaller = LanguageModel(model=copy.deepcopy(model), tokenizer=None)  # type: ignore[arg-type]
    pruner = Pruner(criterion=L2(), structure=structure, allocation=Layerwise())
    context = PruningContext(generator=torch.Generator())
    dense = pruner.left(smaller)
    return lambda: pruner.prune(smaller, dense, 0.5, context)


if __name__ == "__main__":
    sys.exit(main())
