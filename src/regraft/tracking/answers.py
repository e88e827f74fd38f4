"""The test questions beside what was right and what each model answered: the table that trackers show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.records import PREDICTIONS, Record, StageRecord, questions_file

if TYPE_CHECKING:
    import pandas

SPLIT = "test"
MODELS = ("dense", "pruned", "recovered")
"""The model before pruning, after the last pruning, and after the last recovery; a column each."""


class Answers:
    """Gathers the answers as the stages of a run come."""

    def __init__(self) -> None:
        self._asked: dict[str, pandas.DataFrame] = {}
        self._before = ""
        self._changed = False

    def stage(self, stage: StageRecord, tables: Mapping[str, pandas.DataFrame]) -> None:
        """Take note of a stage, the predictions that it made included."""
        if PREDICTIONS in tables:
            asked = tables[PREDICTIONS]
            which = "pruned" if self._before == "prune" else "recovered" if self._changed else "dense"
            self._asked[which] = asked[asked["split"] == SPLIT].set_index("id")
        self._before = stage.stage
        self._changed = self._changed or stage.stage in ("prune", "load")

    def table(self, record: Record, folder: Path) -> pandas.DataFrame | None:
        """`id`, `question`, `choices`, `gold` and `MODELS`: texts, or numbers of choices if no text is at hand.

        None if the dense model was asked no test question.

        Args:
            record: The run's record.
            folder: Its folder.
        """
        import pandas

        if "dense" not in self._asked:
            return None
        table = self._asked["dense"][["gold"]].assign(
            **{which: asked["predicted"] for which, asked in self._asked.items()}
        )
        table = table.reindex(columns=["gold", *MODELS]).astype("Int64").astype(object)
        choices: dict[str, list[str]] = {}
        path = questions_file(folder, record)
        if path is not None and path.is_file():
            asked = pandas.read_parquet(path)
            asked = asked[asked["split"] == SPLIT].set_index("id").reindex(table.index)
            choices = {str(name): list(texts) for name, texts in asked["choices"].dropna().items()}
            table.insert(0, "question", asked["question"])
        else:
            table.insert(0, "question", None)
        table.insert(1, "choices", [" | ".join(choices.get(str(name), ())) or None for name in table.index])
        for column in ("gold", *MODELS):
            table[column] = [
                None if number is pandas.NA else choices[name][number] if name in choices else str(number)
                for name, number in zip(map(str, table.index), table[column], strict=True)
            ]
        return table.reset_index()
