"""`regraft ...` in processes that begin where the imports are done, which take most of a short run's time.

A server that has imported what a run imports, and has done nothing else, forks for each command. The command is a
process of its own: with its own folder, environment, files for what it says, and end. It shares with the other
commands what the interpreter decides at its start: the seed of hashes, the search path, what PYTHON... variables say.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

TIMEOUT = 300
"""Seconds after which a command is killed."""


class Server:
    """Starts commands, one after another, while the `with` block lasts."""

    def __enter__(self) -> Server:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate(timeout=10)

    def run(self, arguments: tuple[str, ...], folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
        """`regraft ...` in a folder: how it ended, what it said, and what it said of errors."""
        assert self._server.stdin is not None and self._server.stdout is not None
        with tempfile.TemporaryDirectory() as beside:
            out, err = Path(beside, "out"), Path(beside, "err")
            asked = {"arguments": arguments, "folder": str(folder), "environment": environment}
            self._server.stdin.write(json.dumps(asked | {"out": str(out), "err": str(err)}) + "\n")
            self._server.stdin.flush()
            return int(self._server.stdout.readline()), out.read_text(), err.read_text()


def serve() -> None:
    """Fork for each line of the standard input; in the fork, do what it asks and return."""
    import hydra  # noqa: F401
    import torch
    import transformers.models.olmo2.modeling_olmo2  # noqa: F401

    import regraft.run  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()  # to look through all that when a fork ends takes longer than many a command
    for line in sys.stdin:
        if not (child := os.fork()):
            asked = json.loads(line)
            signal.alarm(TIMEOUT)
            os.chdir(asked["folder"])
            os.environ.clear()
            os.environ.update(asked["environment"])
            for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), number)
            sys.argv = ["regraft", *asked["arguments"]]
            sys.path[0] = asked["folder"]
            runpy.run_module("regraft", run_name="__main__", alter_sys=True)
            return
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
