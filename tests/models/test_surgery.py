"""What is left of a matrix, number for number."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regraft.models.surgery import LINES, Slice


@pytest.mark.parametrize("rows", [1, LINES - 1, LINES, 2 * LINES + 3])
@pytest.mark.parametrize("turned", [False, True], ids=["as stored", "turned"])
@pytest.mark.parametrize("kept", [[0], [1, 2, 6], list(range(7))], ids=len)
def test_columns_that_stay_are_those_of_each_row(rows: int, turned: bool, kept: list[int]) -> None:
    stays = torch.zeros(7, dtype=torch.bool)
    stays[kept] = True
    piece = Slice(module=nn.Linear(7, rows), attribute="weight", dimension=1, stays=stays)
    numbers = torch.arange(7 * rows)
    matrix = numbers.view(7, rows).T if turned else numbers.view(rows, 7)
    left = piece.of(matrix)
    assert left.tolist() == [[row[column] for column in kept] for row in matrix.tolist()]
    assert left.is_contiguous()
