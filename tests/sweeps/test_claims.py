"""One process does a run at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.interruption import Stopped
from regraft.records import is_running, was_killed
from regraft.sweeps.claims import claimed
from regraft.sweeps.failures import RunBusy

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom regraft.sweeps.claims import claimed\n"
    "with claimed(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


def test_another_process_holds_it_until_it_ends(tmp_path: Path) -> None:
    assert not is_running(tmp_path) and not was_killed(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_running(tmp_path) and not was_killed(tmp_path)
    with pytest.raises(RunBusy, match=f"{tmp_path}: another process is doing this run"), claimed(tmp_path):
        pytest.fail("two processes hold it")
    assert is_running(tmp_path), "asking took the claim away"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert was_killed(tmp_path) and not is_running(tmp_path)
    with claimed(tmp_path):
        pass
    assert not was_killed(tmp_path)


@pytest.mark.parametrize("error", [ValueError("failed"), Stopped(signal.SIGTERM)])
def test_a_run_that_fails_or_stops_is_not_taken_for_killed(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), claimed(tmp_path):
        raise error
    assert not was_killed(tmp_path) and not is_running(tmp_path)
