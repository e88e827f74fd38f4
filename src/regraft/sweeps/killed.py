"""The answer of a Slurm job whose run was killed and cannot answer: `conf/hydra/launcher/slurm.yaml` calls it.

Without an answer submitit asks Slurm's accounting, and where there is none it waits for ever; and an answer that is an
error makes it forget all other jobs of the array.

    python -m regraft.sweeps.killed ANSWER "what happened"
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from regraft.sweeps.failures import RunKilled


def answer(file: Path, what: str) -> None:
    """Write into `file` what submitit hands on as the result of the job."""
    killed = JobReturn(status=JobStatus.FAILED)
    killed.return_value = RunKilled(what)
    aside = file.with_name(f".{file.name}")
    aside.write_bytes(pickle.dumps(("success", killed)))
    os.replace(aside, file)


if __name__ == "__main__":
    answer(Path(sys.argv[1]), sys.argv[2])
