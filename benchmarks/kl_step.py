"""What a step of KL costs with its teacher live and with its teacher in the cache, against one of cross-entropy.

    python -m benchmarks.kl_step --steps 30 model=tiny_olmo2
    python -m benchmarks.kl_step --steps 8 model=smollm2_135m task=commonsense_qa recovery=pretrained

All read the same sequences at the same positions: each question with all its choices. The three students take turns,
step by step, so that whatever else the machine does falls on all of them alike; the ratios are of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from hydra import compose, initialize_config_dir

from regraft.__main__ import conf
from regraft.cache import Cache
from regraft.config.schema import RunConfig
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.distillation.teachers.cached import Cached
from regraft.distillation.teachers.dense import Dense
from regraft.environment import describe
from regraft.interfaces import Loss, Teacher, TeacherContext
from regraft.models.precision import autocast, resolved_precision
from regraft.recovery.batches import Questions
from regraft.recovery.loop import Trainer
from regraft.sweeps.identity import register, typed
from regraft.tasks.encoding import encode_all

ARMS: dict[str, tuple[Loss, Teacher | None]] = {
    "ce": (CrossEntropy(reads="choices"), None),
    "kl, teacher live": (KL(), Dense()),
    "kl, teacher cached": (KL(), Cached()),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a line for each arm and one of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kl_step", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30, help="measured steps of each arm; two more warm it up")
    parser.add_argument("overrides", nargs="*", help="of the config, such as model=smollm2_135m")
    given = parser.parse_args(arguments)
    register()
    with initialize_config_dir(str(conf()), version_base="1.3"):
        composed = compose("config", given.overrides, return_hydra_config=True)
        config = typed(composed, composed.hydra)
    torch.set_num_threads(config.runtime.threads)
    cache = Cache(config.runtime.cache)
    steps = given.steps + 2
    trainers = {name: _trainer(config, cache, loss, teacher, steps) for name, (loss, teacher) in ARMS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ARMS}
    for step in range(steps):
        for name, trainer in trainers.items():
            started = time.perf_counter()
            trainer.run(until=step + 1)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(taken[2:]) for name, taken in seconds.items()}
    for name, median in medians.items():
        sys.stdout.write(f"{name:<20} {1000 * median:8.1f} ms a step   {median / medians['ce']:.3f} of ce\n")
    environment = describe(torch.device("cpu"))
    sys.stdout.write(json.dumps({"overrides": given.overrides, "median_seconds": medians} | environment) + "\n")
    return 0


def _trainer(config: RunConfig, cache: Cache, loss: Loss, teacher: Teacher | None, steps: int) -> Trainer:
    student = config.model.load(cache)
    training = replace(config.recovery, steps=steps, epochs=1.0)
    questions = config.task.load(cache).recovery
    batches = Questions(
        encoded=encode_all(student.tokenizer, config.task, questions, None),
        loss=loss,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        pad_token_id=student.pad_token_id,
        seed=config.seed,
        first=0,
        steps=steps,
    )
    answers = None
    if teacher is not None:
        answers = teacher.build(
            TeacherContext(
                dense=lambda: config.model.load(cache),
                dense_key="benchmark",
                student=student,
                cache=cache,
                questions=batches.each,
                questions_key=f"{batches.content()} {resolved_precision(student.model, training.precision)}",
                autocast=lambda: autocast(student.model, training.precision),
                report=lambda told: None,
            )
        )
    return Trainer(student, batches, loss, training, steps, teacher=answers)


if __name__ == "__main__":
    sys.exit(main())
