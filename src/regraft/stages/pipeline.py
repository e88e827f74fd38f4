"""The order of the stages.

`initialise` draws the weights anew, as the architecture draws them, and keeps what pruning decided. `rewind` gives what
is left the weights that it had before the first pruning, or early in a training that comes before it (`rewind_to`):
each recovery then goes the whole way from there, so a pipeline that rewinds trains as often as it prunes, and once
more. A recovery in `after` goes the whole way too: from where the run rewound to, or from weights that are drawn anew,
and so, `times` times, in generations. `instruct` looks for a prompt and trains nothing; the model that has one is
measured, and nothing else is done with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.config.ranges import require
from regraft.interfaces import Component
from regraft.recovery.instructions import Instructions

StageName = Literal["prepare", "initialise", "prune", "rewind", "recover", "instruct", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class Pipeline(Component):
    """Stages that come once, stages that are repeated for each step of the schedule, and stages that end the run."""

    before: tuple[StageName, ...] = ("prepare", "evaluate")
    """Stages before pruning: `prepare`, whose result is the dense model and the teacher, and its evaluation; then
    perhaps `initialise`."""
    repeat: tuple[StageName, ...] = ("prune", "evaluate", "recover", "evaluate")
    """Stages of each step of the schedule. What is measured between pruning and recovery is measured once for all runs
    that prune alike."""
    after: tuple[StageName, ...] = ()
    """Stages after the last step. The last of all stages must be `evaluate`: a run that measures nothing is no run."""
    times: int = 1
    """How often the stages of `after` come: the number of generations."""
    rewind_to: float = 0.0
    """With `rewind`: the share of the recovery's steps that are trained before all else, and to whose end it goes back
    (the k of lottery tickets); 0 goes back to what entered the first stage of `repeat`."""
    instructions: Instructions | None = None
    """With `instruct`: what the teacher proposes as a prompt; null for a pipeline without."""

    def __post_init__(self) -> None:
        begins = self.before in (("prepare", "evaluate"), ("prepare", "evaluate", "initialise"))
        require(begins, "before", list(self.before), "[prepare, evaluate] or [prepare, evaluate, initialise]")
        others = {"prepare", "instruct"} & set(self.repeat)
        require(not others, "repeat", list(self.repeat), "a list without prepare and instruct")
        if not self.after:
            require(self.repeat[-1:] == ("evaluate",), "repeat", list(self.repeat), "a list that ends with evaluate")
        ends = not self.after or self.after[-1] == "evaluate"
        require(ends, "after", list(self.after), "empty, or a list that ends with evaluate")
        others = {"prepare", "prune"} & set(self.after)
        require(not others, "after", list(self.after), "a list without prepare and prune")
        first = "initialise" in self.after[: self.after.index("recover")] if "recover" in self.after else True
        again = first and self.after.count("recover") < 2
        require(
            self.rewinds or again,
            "after",
            list(self.after),
            "a list with one recover at most, and initialise before it, unless repeat rewinds",
            "Repeat it with pipeline.times.",
        )
        require(self.times >= 1, "times", self.times, "at least 1")
        require(self.times == 1 or bool(self.after), "times", self.times, "1 for a pipeline with nothing in after")
        instructs = "instruct" in self.after
        last = not instructs or set(self.after[self.after.index("instruct") + 1 :]) == {"evaluate"}
        require(last, "after", list(self.after), "a list with nothing but evaluate behind instruct")
        once = self.times == 1 or not instructs
        require(once, "times", self.times, "1 for a pipeline that instructs")
        both = instructs == (self.instructions is not None)
        told = None if self.instructions is None else self.instructions.form
        require(both, "instructions", told, "given with instruct in after, and only then")
        share = self.rewind_to
        require(0 <= share < 1, "rewind_to", share, "in [0, 1)")
        require(share == 0 or self.rewinds, "rewind_to", share, "0 for a pipeline that does not rewind")

    @property
    def rewinds(self) -> bool:
        """Whether each recovery begins at the point of rewinding, in place of going on from the one before."""
        return "rewind" in self.repeat
