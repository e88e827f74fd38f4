"""An ONNX graph, for onnxruntime and what reads ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from regraft.config.ranges import require
from regraft.interfaces import Exporter, LanguageModel

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

EXAMPLE = 2, 16
"""Rows and tokens that the graph is traced with; both are free in the graph. torch takes a size of 1 for a constant."""


@dataclass(frozen=True, kw_only=True)
class Onnx(Exporter):
    """`model.onnx`: `input_ids` (batch, seq) to `logits` (batch, seq, vocab), of any batch size and length.

    One forward pass over whole sequences, without padding and without a cache of keys and values. The layers keep their
    own widths. Weights lie in `model.onnx.data`; config.json and the tokenizer's files lie beside.
    """

    file: ClassVar[str] = "model.onnx"
    library: ClassVar[tuple[str, str] | None] = ("onnxscript", "onnx")

    opset: int = 18
    """Version of ONNX's operators, at least 18."""

    def __post_init__(self) -> None:
        require(self.opset >= 18, "opset", self.opset, "at least 18")

    def write(self, model: LanguageModel, folder: Path) -> None:
        import torch

        from regraft.models import export

        batch, seq = (torch.export.Dim(name) for name in ("batch", "seq"))
        tokens = torch.arange(EXAMPLE[0] * EXAMPLE[1]).remainder(model.model.config.get_text_config().vocab_size)
        with export.written(folder) as aside, _quiet(), torch.no_grad():
            torch.onnx.export(
                _logits(model.model),
                (tokens.view(EXAMPLE).to(model.model.device),),
                aside / self.file,
                input_names=["input_ids"],
                output_names=["logits"],
                dynamic_shapes=({0: batch, 1: seq},),
                opset_version=self.opset,
                dynamo=True,
                external_data=True,
                verbose=False,
            )
            model.model.config.save_pretrained(aside)
            model.tokenizer.save_pretrained(aside)


def _logits(model: PreTrainedModel) -> torch.nn.Module:
    """The model as a function of tokens."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(input_ids=input_ids, use_cache=False).logits
            return logits

    return Logits().eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its own deprecated calls, and of every step; what fails it raises."""
    kept = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(kept)
