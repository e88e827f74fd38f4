"""What KL over a large vocabulary takes by chunks, against autograd through all logits at once.

    python -m benchmarks.chunked_kl --rounds 5

From what enters the heads of student and teacher to the value and the gradients of the student's states and head, in
float32. Each way runs in a process of its own, in turns with the other one, since the peak of memory is that of a
process and its time that of a machine that others may use: the peak is taken over the first step alone, the seconds are
the least of all rounds, on the wall and of the processor. Then value and gradients are compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from regraft.distillation.losses.divergence import forward_kl
from regraft.distillation.vocabulary import summed
from regraft.environment import describe
from regraft.interfaces import Head, ModelOutputs

Step = Callable[[ModelOutputs, ModelOutputs], torch.Tensor]


def at_once(student: ModelOutputs, teacher: ModelOutputs) -> torch.Tensor:
    """As anybody would write it."""
    with torch.no_grad():
        log_p = torch.log_softmax(teacher.logits, dim=-1)
    log_q = torch.log_softmax(student.logits, dim=-1)
    return torch.nn.functional.kl_div(log_q, log_p, reduction="sum", log_target=True)


def by_chunks(student: ModelOutputs, teacher: ModelOutputs) -> torch.Tensor:
    """As the loss KL does it."""
    return summed(student, lambda z, part: forward_kl(z, teacher.logits_at(part)))


WAYS: dict[str, Step] = {"all logits": at_once, "chunks": by_chunks}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a line for each way and one of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chunked_kl", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes of each way")
    parser.add_argument("--steps", type=int, default=2, help="measured steps of a process")
    parser.add_argument("--vocabulary", type=int, default=100_352)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.way:
        sys.stdout.write(json.dumps(_measured(given)))
        return 0
    own = sys.argv[1:] if arguments is None else list(arguments)
    measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        kept = {way: Path(folder) / f"{number}.safetensors" for number, way in enumerate(WAYS)}
        for _ in range(given.rounds):
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.chunked_kl", *own, "--way", way, "--keep", str(kept[way])]
                answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                measured[way].append(json.loads(answer))
        distances = _distances(*map(load_file, kept.values()))
    least: dict[str, Any] = {
        way: {name: min(each[name] for each in rounds) for name in rounds[0]} for way, rounds in measured.items()
    }
    for way, numbers in least.items():
        ratios = {name: number / least["all logits"][name] for name, number in numbers.items()}
        sys.stdout.write(
            f"{way:<12}"
            + "".join(f"{numbers[name]:9.2f} {unit} ({ratios[name]:.3f})" for name, unit in UNITS.items())
            + "\n"
        )
    for name, distance in distances.items():
        sys.stdout.write(f"{name:<12} differs by {distance:.1e} of its size\n")
    told = {"least": least, "distances": distances, "arguments": own} | describe(torch.device("cpu"))
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


UNITS = {"extra_mebibytes": "MiB", "seconds": "s", "processor_seconds": "s of processor"}


def _measured(given: argparse.Namespace) -> dict[str, float]:
    """One way, in this process."""
    torch.set_num_threads(given.threads)
    generator = torch.Generator().manual_seed(0)

    def outputs(learns: bool) -> ModelOutputs:
        states = torch.randn(given.positions, given.hidden, generator=generator).requires_grad_(learns)
        weight = torch.randn(given.vocabulary, given.hidden, generator=generator)
        weight = (weight * 2 / given.hidden**0.5).requires_grad_(learns)
        return ModelOutputs(states=states, head=Head(weight=weight, bias=None, softcap=None, dtype=torch.float32))

    student, teacher = outputs(learns=True), outputs(learns=False)
    assert student.states is not None and student.head is not None
    learned = {"states": student.states, "head": student.head.weight}
    walls, processors, extra = [], [], 0.0
    for _ in range(given.steps):
        for tensor in learned.values():
            tensor.grad = None
        before = _resident()
        said, taught = (ModelOutputs(states=each.states, head=each.head) for each in (student, teacher))
        wall, processor = time.perf_counter(), time.process_time()
        value = WAYS[given.way](said, taught)
        value.backward()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
        extra = extra or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before
        total = value.detach()
        del said, taught, value
    gradients = {name: tensor.grad for name, tensor in learned.items() if tensor.grad is not None}
    save_file({"value": total, **gradients}, given.keep)
    return {"extra_mebibytes": extra, "seconds": min(walls), "processor_seconds": min(processors)}


def _resident() -> float:
    """Memory of this process now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def _distances(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> dict[str, float]:
    """Norm of the difference over the norm."""
    return {
        name: float((got[name].double() - tensor.double()).norm() / tensor.double().norm())
        for name, tensor in expected.items()
    }


if __name__ == "__main__":
    sys.exit(main())
