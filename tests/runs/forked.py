"""`regraft ...` in processes that begin where the imports are done, which take most of a short run's time.

A server that has imported what a run imports, and has done nothing else, forks for each command. The command is a
process of its own: with its own folder, environment, random numbers, files for what it says, and end. It shares with
the other commands what is decided before it begins: the seed of hashes, the search path, and what interpreter and
libraries read from the environment when they start (`EARLY`).
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

TIMEOUT = 300
"""Seconds after which a command is killed, with the processes that it started."""
EARLY = ("PYTHON", "HOME", "HF_", "OMP_", "RANK", "TORCH_", "TRANSFORMERS_", "WORLD_SIZE", "XDG_")
"""How variables begin that an interpreter or what the server imports may read before a command begins."""


class Server:
    """Starts commands, one after another, while the `with` block lasts, and ends with the process that made it."""

    def __enter__(self) -> Server:
        self._environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for pytest, which ends the server then
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate(timeout=60)

    def can(self, environment: dict[str, str]) -> bool:
        """Whether a command with these variables is the same as in an interpreter of its own."""
        ours, asked = (
            {name: value for name, value in variables.items() if name.startswith(EARLY)}
            for variables in (self._environment, environment)
        )
        return sys.platform == "linux" and ours == asked

    def run(self, arguments: tuple[str, ...], folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
        """`regraft ...` in a folder: how it ended, what it said, and what it said of errors.

        Raises:
            TimeoutExpired: It took longer than `TIMEOUT`.
        """
        assert self._server.stdin is not None and self._server.stdout is not None
        with tempfile.TemporaryDirectory() as beside:
            out, err = Path(beside, "out"), Path(beside, "err")
            asked = {"arguments": arguments, "folder": str(folder), "environment": environment}
            self._server.stdin.write(json.dumps(asked | {"out": str(out), "err": str(err)}) + "\n")
            self._server.stdin.flush()
            answer = self._server.stdout.readline()
            assert answer, "the server ended"
            said = out.read_text(), err.read_text()
        if (code := json.loads(answer)) is None:
            raise subprocess.TimeoutExpired(arguments, TIMEOUT, *said)
        return code, *said


def serve() -> None:
    """Fork for each line of the standard input; in the fork, do what it asks and return."""
    began_with = set(os.environ)

    import hydra  # noqa: F401
    import numpy as np
    import torch  # noqa: F401
    import transformers.models.olmo2.modeling_olmo2  # noqa: F401

    import regraft.run  # noqa: F401

    assert "wandb" not in sys.modules, "it reads its variables when it is imported: that is left to the commands"
    gc.freeze()  # to look through all that when a fork ends takes longer than many a command
    for line in sys.stdin:
        asked = json.loads(line)
        if child := os.fork():
            os.setpgid(child, child)
            sys.stdout.write(f"{json.dumps(_wait(child))}\n")
            sys.stdout.flush()
            continue
        os.setpgid(0, 0)
        os.chdir(asked["folder"])
        for name in began_with - set(asked["environment"]):
            del os.environ[name]
        os.environ.update(asked["environment"])  # beside what the imports set
        for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
            opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        sys.argv = ["regraft", *asked["arguments"]]
        sys.path[0] = asked["folder"]
        np.random.seed()  # from the system, as when NumPy is imported; Python's own numbers begin anew by themselves
        runpy.run_module("regraft", run_name="__main__", alter_sys=True)
        return


def _wait(child: int) -> int | None:
    """The code with which a process ends, or None if it was killed because it took too long.

    Raises:
        SystemExit: Who asked for it is gone, and so is the process.
    """
    ended = os.pidfd_open(child)
    waiting = select.poll()
    waiting.register(ended, select.POLLIN)
    waiting.register(sys.stdin, 0)  # that nobody can write there any more is told without asking
    happened = [number for number, _ in waiting.poll(TIMEOUT * 1000)]
    os.close(ended)
    if ended not in happened:
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if sys.stdin.fileno() in happened:
        sys.exit()
    return code if ended in happened else None


if __name__ == "__main__":
    serve()
