"""What memory a recovery takes: by a formula, and measured.

    python -m benchmarks.memory measure
    python -m benchmarks.memory fits

`measure` trains a model with random weights for two steps of KL on a CPU in float32, each arm in processes of its own,
and compares the highest resident memory above that of a process that has imported everything with the formula: without
what `malloc` keeps of freed memory, and with it. `fits` applies the formula to OLMo2-7B. Bytes, with P weights of the
student, P_t of them trained, Q of the teacher, n positions, r of them read, V the vocabulary, h the hidden size, L
layers and a bytes an activation:

    student     4 P
    gradients   4 P_t
    moments     8 P_t            AdamW; 2 P_t with 8 bits (and 8 / 256 for the scales)
    teacher     b Q              b = 4 float32, 2 bfloat16; cached: its head b V h alone, and b r h of every text
    activations a n (L k + h)    k numbers that a position keeps of a layer; with checkpointing L h + k
    casts       2 P              under autocast to bfloat16, from the forward to the backward pass
    head        24 c V + 4 V h   c = 2^23 / V positions a chunk, 6 copies; the head's gradient, if it is trained

Student, teacher, moments and casts are held throughout. Activations and head are at their most when the loss is
computed, before which the gradients were dropped, and are gone when the last gradient is there: of the two the greater
counts. With accumulation the earlier parts' gradients are there too, and both count.

k counts what the backward pass keeps: the inputs of each matrix and norm, the gate's and the up projection's output,
the queries, keys and values, and of attention that takes a mask of pairs the heads' scores (s a position and head,
twice).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

GIGABYTE = 10**9
CHUNK = 2**23
COPIES = 6
"""Of a chunk of logits: the student's, in float32, both log-softmaxes, their difference, the gradient twice."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder with a gated MLP, as `transformers` names its sizes."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    vocabulary: int

    @property
    def layer(self) -> int:
        """Weights of a layer's matrices; norms are small."""
        return 4 * self.hidden**2 + 3 * self.hidden * self.intermediate

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def weights(self) -> int:
        """With embedding and head, which are two matrices."""
        return self.layers * self.layer + 2 * self.embedding


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to train."""

    optimizer: str = "adamw"
    checkpointing: bool = False
    lora: int | None = None
    frozen: tuple[str, ...] = ()
    teacher: str = "float32"
    """`float32`, `bfloat16`, or `cached`."""
    activation: int = 4
    """Bytes of a number: 2 under autocast to bfloat16."""
    kernel: bool = False
    """Whether attention keeps no scores."""


ARMS = {
    "full": Arm(),
    "full, teacher in bfloat16": Arm(teacher="bfloat16"),
    "full + checkpointing": Arm(checkpointing=True),
    "8-bit": Arm(optimizer="adamw_8bit"),
    "LoRA": Arm(lora=8),
    "frozen embeddings and head": Arm(frozen=("embeddings", "head")),
    "cached teacher": Arm(teacher="cached"),
    "all of it (8-bit, checkpointing, cached)": Arm(optimizer="adamw_8bit", checkpointing=True, teacher="cached"),
    "LoRA + checkpointing, cached": Arm(lora=8, checkpointing=True, teacher="cached"),
}
SMALL = Shape(hidden=512, layers=6, intermediate=1408, heads=8, vocabulary=32_000)
"""What is measured: 52 million weights."""
OLMO2_7B = Shape(hidden=4096, layers=32, intermediate=11008, heads=32, vocabulary=100_352)


def predicted(shape: Shape, arm: Arm, rows: int, seq: int, reads: int) -> dict[str, float]:
    """Bytes of each part.

    Args:
        shape: Of student and teacher.
        arm: How it is trained.
        rows: Questions of a forward pass.
        seq: Positions of each.
        reads: Positions that are read, over all rows.
    """
    n, a, h = rows * seq, arm.activation, shape.hidden
    trained = shape.weights
    adapters = 0
    if arm.lora is not None:
        adapters = shape.layers * arm.lora * (4 * 2 * h + 3 * (h + shape.intermediate))
        trained = adapters
    head_trained = arm.lora is None and "head" not in arm.frozen
    if "embeddings" in arm.frozen:
        trained -= shape.embedding
    if "head" in arm.frozen:
        trained -= shape.embedding
    moment = 2 * (1 + 4 / 256) if arm.optimizer == "adamw_8bit" else 8
    # inputs of the matrices and norms (7 h), queries, keys and values turned (5 h), the MLP (4 times its width)
    kept = 12 * h + 4 * shape.intermediate + (0 if arm.kernel else 2 * shape.heads * seq)
    layers = shape.layers * h + kept if arm.checkpointing else shape.layers * kept
    teacher = {
        "float32": 4.0 * shape.weights,
        "bfloat16": 2.0 * shape.weights,
        "cached": 4.0 * shape.embedding + 4.0 * reads * h,
    }[arm.teacher]
    positions = min(reads, CHUNK // shape.vocabulary)
    return {
        "student": 4.0 * (shape.weights + adapters),
        "teacher": teacher,
        "gradients": 4.0 * trained,
        "moments": moment * trained,
        "casts": 2.0 * shape.weights if a == 2 else 0.0,
        "activations": float(a * n * (layers + h)),
        "logits": 4.0 * COPIES * positions * shape.vocabulary,
        "head": 4.0 * shape.embedding if head_trained else 0.0,
    }


GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""Environment in which glibc gives every freed tensor of a MB or more back to the system.

As it comes, each tensor of up to 32 MB that is freed teaches it to take such from its heap, whose holes it keeps.
"""
PARTS = ("student", "teacher", "gradients", "moments", "casts", "activations")
"""Columns of what fits, before logits and head."""


def peak(parts: Mapping[str, float]) -> float:
    """The highest sum, of a step that is not cut: at the loss, or when all gradients are there."""
    held = parts["student"] + parts["teacher"] + parts["moments"] + parts["casts"]
    return held + max(parts["gradients"], parts["activations"] + parts["logits"] + parts["head"])


def measured(arm: str, rows: int, seq: int) -> dict[str, float]:
    """Bytes by which two steps of `arm` raise the highest resident memory; read positions."""
    import resource

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from regraft.distillation.losses.kl import KL
    from regraft.distillation.teachers.answers import Live, _narrow
    from regraft.interfaces import Answers, Batch, EncodedQuestion, Head, LanguageModel, ModelOutputs
    from regraft.recovery.batches import Questions
    from regraft.recovery.loop import Trainer
    from regraft.recovery.lora import Lora
    from regraft.recovery.training import Training

    class Kept(Answers):
        """The head on states that are at hand."""

        def __init__(self) -> None:
            self.weight = torch.randn(SMALL.vocabulary, SMALL.hidden) / 10

        def __call__(self, batch: Batch) -> ModelOutputs:
            head = Head(weight=self.weight, bias=None, softcap=None, dtype=torch.float32)
            return ModelOutputs(states=torch.randn(len(batch.read), SMALL.hidden), head=head)

    torch.set_num_threads(1)
    chosen = ARMS[arm]
    if chosen.lora is not None:
        import peft  # noqa: F401  (what it takes by itself is no part of the training)
    config = AutoConfig.for_model(
        "olmo2",
        vocab_size=SMALL.vocabulary,
        hidden_size=SMALL.hidden,
        intermediate_size=SMALL.intermediate,
        num_hidden_layers=SMALL.layers,
        num_attention_heads=SMALL.heads,
    )
    generator = torch.Generator().manual_seed(0)
    encoded = [
        EncodedQuestion(
            id=str(number),
            context=tuple(torch.randint(3, SMALL.vocabulary, (seq - 2,), generator=generator).tolist()),
            choices=((5, 6), (7, 8)),
        )
        for number in range(rows)
    ]
    loss = KL(positions="all")
    training = Training(
        batch_size=rows,
        optimizer=chosen.optimizer,  # type: ignore[arg-type]
        gradient_checkpointing=chosen.checkpointing,
        frozen=chosen.frozen,  # type: ignore[arg-type]
        lora=None if chosen.lora is None else Lora(rank=chosen.lora),
        precision="float32",
    )
    batches = Questions(
        encoded=encoded, loss=loss, batch_size=rows, accumulation=1, pad_token_id=0, seed=0, first=0, steps=2
    )
    reads = len(next(iter(batches.step(0, None)))[0].read)  # type: ignore[arg-type]

    def resident() -> int:
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = resident()
    student = LanguageModel(model=AutoModelForCausalLM.from_config(config).eval(), tokenizer=None)  # type: ignore[arg-type]
    teacher: Answers = Kept()
    if chosen.teacher != "cached":
        model = AutoModelForCausalLM.from_config(config).eval()
        if chosen.teacher == "bfloat16":
            _narrow(model)
        teacher = Live(model)
    Trainer(student, batches, loss, training, 2, teacher=teacher).run()
    return {"bytes": resident() - before, "reads": reads}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("measure", "fits", "arm"))
    parser.add_argument("--arm", default="full", help="of `arm`, which measures it in this process")
    parser.add_argument("--questions", type=int, default=None, help="of a forward pass: 4 measured, 16 of what fits")
    parser.add_argument("--tokens", type=int, default=None, help="of each: 256 measured, 128 of what fits")
    given = parser.parse_args(arguments)
    if given.what == "arm":
        sys.stdout.write(json.dumps(measured(given.arm, given.questions, given.tokens)) + "\n")
    elif given.what == "measure":
        _measure(given.questions or 4, given.tokens or 256)
    else:
        _fits(given.questions or 16, given.tokens or 128)
    return 0


def _measure(rows: int, seq: int) -> None:
    sys.stdout.write(
        f"{SMALL}, {rows} x {seq} tokens, all read\n\n"
        "| arm | formula, MB | measured, MB | with what malloc keeps, MB | measured / formula |\n"
        "|---|---|---|---|---|\n"
    )
    for name, arm in ARMS.items():
        found, kept = (_apart(name, rows, seq, environment) for environment in (GIVEN_BACK, {}))
        formula = peak(predicted(SMALL, arm, rows, seq, found["reads"]))
        cells = [formula / 1e6, found["bytes"] / 1e6, kept["bytes"] / 1e6]
        told = " | ".join(f"{cell:.0f}" for cell in cells)
        sys.stdout.write(f"| {name} | {told} | {found['bytes'] / formula:.2f} |\n")
        sys.stdout.flush()


def _apart(arm: str, rows: int, seq: int, environment: Mapping[str, str]) -> dict[str, float]:
    """What is measured in a process of its own, with more in its environment."""
    command = [sys.executable, "-m", "benchmarks.memory", "arm", "--arm", arm]
    told = subprocess.run(
        [*command, "--questions", str(rows), "--tokens", str(seq)],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return found


def _fits(rows: int, seq: int) -> None:
    sys.stdout.write(
        f"OLMo2-7B, {OLMO2_7B.weights / 1e9:.1f} billion weights, {rows} x {seq} tokens, an eighth read; weights in "
        "float32, autocast to bfloat16; attention with a mask keeps its scores\n\n"
        "| arm | student | teacher | gradients | moments | casts | activations | logits and head | peak, GB | fits |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    for name, arm in ARMS.items():
        parts = predicted(OLMO2_7B, replace(arm, activation=2), rows, seq, rows * seq // 8)
        total = peak(parts)
        cards = [str(size) for size in (24, 80, 141) if total <= size * GIGABYTE]
        logits = parts["logits"] + parts["head"]
        numbers = [*(parts[key] for key in PARTS), logits, total]
        cells = " | ".join(f"{number / GIGABYTE:.1f}" for number in numbers)
        sys.stdout.write(f"| {name} | {cells} | {cards[0] if cards else 'none of them'} |\n")


if __name__ == "__main__":
    sys.exit(main())
