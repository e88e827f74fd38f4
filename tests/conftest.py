"""What every test shares. Nothing here reaches the network, and no test writes outside its own folder."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from architectures import tiny_model as build_tiny_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from wandb_server import WandbServer

    from regraft.cache import Cache

# Read when the libraries are imported, so they are set before any test imports one.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "agg"
for variable in ("HYDRA_FULL_ERROR", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_DIR"):
    os.environ.pop(variable, None)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tests run side by side; more threads each would only make them wait for one another."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The default cache of a test, and of the processes it starts, is the suite's: never the user's."""
    root = os.environ.get("REGRAFT_TEST_CACHE") or tmp_path_factory.getbasetemp() / "default-cache"
    monkeypatch.setenv("REGRAFT_CACHE", str(root))
    yield


@pytest.fixture(autouse=True)
def bars_are_shown() -> Iterator[None]:
    """A run switches the bars of transformers off for its process, which here outlives it."""
    yield
    if "transformers.utils.logging" in sys.modules:
        sys.modules["transformers.utils.logging"].enable_progress_bar()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache of this test alone."""
    from regraft.cache import Cache

    return Cache(tmp_path / "cache")


@pytest.fixture
def tiny_model() -> Callable[..., PreTrainedModel]:
    """`tiny_model(architecture)`; see `architectures.tiny_model`."""
    return build_tiny_model


@pytest.fixture
def wandb_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A W&B server of this test alone; W&B in this process, and in those that it starts, logs there and reads there.

    The test fails if anything was asked that the server does not know.
    """
    import wandb
    from wandb_server import WandbServer

    gc.freeze()  # what earlier tests left is not this one's
    wandb.teardown()  # its service reads the address when it starts, and an earlier test may have started it
    for name in ("DIR", "CACHE_DIR", "DATA_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
        folder = tmp_path / "wandb" / name.lower()
        folder.mkdir(parents=True)
        monkeypatch.setenv(f"WANDB_{name}", str(folder))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with WandbServer() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server
        server.heal()  # who still waits for an answer is not waited for
        # a run that is left open fails a later test: its thread finds W&B torn down
        left_open = [thread for thread in threading.enumerate() if thread.name == "NetStatThr"]
        wandb.teardown()
    gc.collect()  # a connection that nobody closed is told here, not in whichever test the collector comes
    gc.unfreeze()
    assert not left_open, "a W&B run was not finished"
    server.check()
