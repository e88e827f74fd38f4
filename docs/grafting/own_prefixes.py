"""How far a student is from its teacher where its own words lead it: `python docs/grafting/own_prefixes.py SWEEP`.

Of each run of a sweep with `save_model=true` the student continues the test questions by words that it draws, and so
does the teacher. At each position of both the divergence KL(teacher || student) is computed; the table has its means
over positions, then over seeds with half the width of their 95 % interval (t), and the accuracy of the runs.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from analysis.statistics import t_interval
from regraft.cache import Cache
from regraft.config.schema import load
from regraft.distillation.losses.divergence import forward_kl
from regraft.interfaces import EncodedQuestion, LanguageModel
from regraft.models.forward import forward
from regraft.records import Record
from regraft.recovery.writing import write
from regraft.tasks.encoding import encode_all
from regraft.tasks.packing import pack

TOKENS = 8
AT_ONCE = 64


def divergence(teacher: LanguageModel, student: LanguageModel, texts: Sequence[EncodedQuestion]) -> float:
    """Mean over the written positions of KL(teacher || student), in nats."""
    total, count = 0.0, 0
    for start in range(0, len(texts), AT_ONCE):
        batch = pack(texts[start : start + AT_ONCE], "choices", "answer", student.pad_token_id, labelled=False)
        with torch.no_grad():
            said, taught = forward(student.model, batch).logits, forward(teacher.model, batch).logits
        total += float(forward_kl(said, taught).sum())
        count += len(said)
    return total / count


def measured(folder: Path) -> tuple[str, list[float]]:
    """What the run reads, and its divergence on own and on the teacher's words (nats) and accuracy (%)."""
    record = Record.load(folder)
    config = load({key: value for key, value in record.config.items() if key != "hydra"})
    teacher = config.model.load(Cache())
    checkpoint = folder / "checkpoint"
    student = LanguageModel(
        model=AutoModelForCausalLM.from_pretrained(checkpoint).eval(),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
    )
    asked = encode_all(student.tokenizer, config.task, config.task.load(Cache()).test)
    unlabelled = [replace(question, answer=None) for question in asked]
    own, taught = (
        divergence(teacher, student, write([(writer, 1.0)], unlabelled, tokens=TOKENS, temperature=1.0, seed=0))
        for writer in (student, teacher)
    )
    (accuracy,) = [
        row.value
        for row in record.rows
        if (row.stage_index, row.split, row.metric) == (record.stages[-1].index, "test", "accuracy")
    ]
    batches = config.batches
    data = type(getattr(batches, "data", batches)).__name__
    return f"{data}, share {getattr(batches, 'share', 0.0):g}", [own, taught, 100 * accuracy]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path)
    folders = sorted(path.parent for path in parser.parse_args(arguments).sweep.glob("*/record.json"))
    found: dict[str, list[list[float]]] = defaultdict(list)
    for name, values in map(measured, folders):
        found[name].append(values)
    lines = ["| data, share of own | on own words | on the teacher's words | accuracy |", "|---|---|---|---|"]
    for name, runs in sorted(found.items()):
        cells = [_cell(list(column), digits) for column, digits in zip(zip(*runs, strict=True), (3, 3, 1), strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


def _cell(values: list[float], digits: int) -> str:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    low, high = t_interval(values)
    return f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"


if __name__ == "__main__":
    main()
