"""How strongly a unit speaks: Minitron (Muralidharan et al. 2024, arXiv 2407.14679, section 2.2).

    a_q = mean over tokens t of ||x_tj||                or the root of the sum of squares over t
    s_j = root of sum over questions q of a_q^2         or the mean over q, summed over the maps that read the unit

x_tj is what the unit feeds those maps with: a neuron one number (the input of down), a head its channels (the input of
output, of which ||.|| is the Euclidean norm), a hidden channel what comes out of the norms (inputs of query, key,
value, gate, up and head, where maps that are fed one tensor count once). A head that is tied to the embedding does not
count: there the channel's weights are what the embedding writes. Best in the paper: mean over tokens, L2 over samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from regraft.interfaces import Batch, Criterion, Kind, LanguageModel, PruningContext, PruningNeed, Structure
from regraft.pruning.activations import of_units, tokens, watch_inputs

if TYPE_CHECKING:
    import torch

Aggregation = Literal["mean", "l2"]


@dataclass(frozen=True, kw_only=True)
class Activation(Criterion):
    """Units of small activation go first."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "heads", "hidden"})

    tokens: Aggregation = "mean"
    """Over the tokens of a question with all its choices."""
    questions: Aggregation = "l2"
    """Over the questions."""

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return frozenset({"calibration"})

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        readers = [(number, part) for number, group in enumerate(groups) for part in group.readers]
        sums = [torch.zeros(part.index.shape[0], dtype=torch.float64) for _, part in readers]  # type: ignore[union-attr]
        counted = [False] * len(readers)
        questions = 0
        last: list[Any] = [None]

        def see(reader: int, inputs: torch.Tensor, batch: Batch) -> None:
            nonlocal questions
            questions += len(batch.ids) if reader == 0 else 0
            if inputs is last[0]:
                return
            last[0] = inputs
            counted[reader] = True
            loud = torch.linalg.vector_norm(of_units(readers[reader][1], inputs.double()), dim=-1).flatten(0, -2)
            there = _questions(inputs, batch)
            # shape: (questions, positions) and (positions, units) -> (questions, units)
            if self.tokens == "mean":
                each = there @ loud / there.sum(dim=1, keepdim=True)
            else:
                each = (there @ loud**2).sqrt()
            sums[reader] += (each**2 if self.questions == "l2" else each).sum(dim=0).cpu()

        watch_inputs(model, context.calibration, [part.module for _, part in readers], see)
        scores = [torch.zeros(group.units, dtype=torch.float64) for group in groups]
        for (number, _), total, counts in zip(readers, sums, counted, strict=True):
            if counts:
                scores[number] += total.sqrt() if self.questions == "l2" else total / questions
        return scores


def _questions(inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(questions, positions) float64: 1 where a position of the flattened `inputs` is a token of the question."""
    import torch

    rows = torch.arange(len(batch.ids), device=inputs.device)
    if inputs.ndim == 2:
        return (rows[:, None] == batch.read_question).double()
    there = tokens(batch)
    return torch.block_diag(*there.double())
