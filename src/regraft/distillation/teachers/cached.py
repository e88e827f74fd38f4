"""A teacher that was asked once and is in memory no more.

For each position that the loss reads, one of two things is kept:

* `hidden_states`: what enters the head, h (hidden_size). The head is applied again when the answer is needed,
  z = W h, which is exact but for rounding, and takes vocab / hidden_size times less room than the logits.
* `top_k`: the k largest log-probabilities and what is left, r = 1 - sum over the top k of p. The other tokens share r
  evenly: log p_v = log(r / (vocab - k)). What this loses is measured over all positions and reported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from regraft.cache import digest
from regraft.config.components import described
from regraft.config.ranges import require
from regraft.distillation.teachers.answers import OneModel
from regraft.distillation.teachers.dense import Dense
from regraft.interfaces import Answers, Batch, Head, LanguageModel, LossNeed, ModelOutputs, Teacher, TeacherContext

if TYPE_CHECKING:
    import torch

FORMAT = 3
"""Raise when what is kept changes its meaning."""
KIND = "answers"
ABOUT = "about.json"
ANSWERS = "answers.safetensors"
HEAD = "head.safetensors"


@dataclass(frozen=True, kw_only=True)
class Cached(Teacher):
    """What another teacher says, from the cache. The first run that needs it asks; all others find it there.

    A student that equals its teacher (sparsity 0) does not see a KL of 0 but of rounding, which Adam scales up to whole
    steps: that control needs the live teacher.
    """

    gives: ClassVar[frozenset[LossNeed]] = frozenset({"teacher_logits"})
    asks_before = True
    writes = True

    teacher: Teacher = Dense()
    """Who is asked: a teacher that is one model. Of several, each is kept on its own."""
    keep: Literal["hidden_states", "top_k"] = "hidden_states"
    """What is kept of an answer: `hidden_states`, exact but for rounding, or `top_k`, smaller if hidden_size > 2 k."""
    k: int = 64
    """Tokens that are kept of each position with `top_k`."""

    def __post_init__(self) -> None:
        require(
            isinstance(self.teacher, OneModel),
            "teacher",
            type(self.teacher).__name__,
            "one model whose weights are known before the training (dense, previous, other)",
            "What an average of the student says changes with it; of several teachers each is kept on its own: choose "
            "teacher=several with cached ones among its teachers.",
        )
        require(self.k >= 1, "k", self.k, "at least 1")

    @property
    def asked(self) -> OneModel:
        """Who is asked."""
        assert isinstance(self.teacher, OneModel)
        return self.teacher

    def members(self) -> Iterator[Teacher]:
        yield self
        yield self.teacher

    def writer(self, context: TeacherContext) -> LanguageModel:
        return self.teacher.writer(context)

    def writer_identity(self, dense: str, previous: str) -> Any:
        return self.teacher.writer_identity(dense, previous)

    def build(self, context: TeacherContext) -> Answers:
        key = digest(
            {
                "format": FORMAT,
                "asked": described(self.teacher),
                "teacher": self.asked.identity(context.dense_key, context.previous_key),
                "vocabulary": _vocabulary(context),
                "questions": context.questions_key,
                "keep": self.keep if self.keep == "hidden_states" else self.k,
            }
        )
        device = context.student.model.device.type
        kind = KIND if device == "cpu" else f"{KIND}-{device}"
        make = partial(_ask, self, context)
        folder = context.cache.entry(kind, key, make)
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        context.report({"kept": self.keep, **about["reported"]})
        return _HiddenStates(folder, about) if self.keep == "hidden_states" else _TopK(folder, about)


class _Kept(Answers):
    """The kept positions of the questions of a batch."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        from safetensors.torch import load_file

        self.about = about
        self.tensors = load_file(folder / ANSWERS)

    def rows(self, batch: Batch) -> torch.Tensor:
        """(reads,) long; where the answers to the positions that the batch reads lie."""
        import torch

        spans = [self.about["spans"][name] for name in batch.ids]
        rows = torch.cat([torch.arange(start, start + length) for start, length in spans])
        assert len(rows) == len(batch.read), "the batch reads what was asked"
        return rows


class _HiddenStates(_Kept):
    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        from safetensors.torch import load_file

        super().__init__(folder, about)
        self.head = load_file(folder / HEAD)

    def __call__(self, batch: Batch) -> ModelOutputs:
        """The head on the kept states, under whatever autocast the caller is in."""
        from regraft.models import cost
        from regraft.models.precision import computed_in

        device = batch.read.device
        self.head = {name: tensor.to(device) for name, tensor in self.head.items()}
        weight = self.head["weight"]
        if (counts := cost.ledger()) is not None:
            counts.computed(weight.numel() * len(batch.read))
        head = Head(
            weight=weight,
            bias=self.head.get("bias"),
            softcap=self.about["softcap"],
            dtype=computed_in(weight),
        )
        return ModelOutputs(states=self.tensors["hidden_states"][self.rows(batch)].to(device), head=head)


class _TopK(_Kept):
    def __call__(self, batch: Batch) -> Spread:
        rows, device = self.rows(batch), batch.read.device
        kept = {name: tensor[rows].to(device) for name, tensor in self.tensors.items()}
        return Spread(kept["log_p"], kept["token"], kept["log_left"], self.about["vocabulary"])


class Spread(ModelOutputs):
    """Log-probabilities, which are logits of themselves: the kept ones, and the rest spread evenly where it is asked.

    Args:
        log_p: (reads, k) float32; the largest.
        token: (reads, k); whose they are.
        log_left: (reads, 1) float32; the mass of all others.
        vocabulary: Tokens in all.
        known: How many of them are asked for; None: all.
    """

    def __init__(
        self,
        log_p: torch.Tensor,
        token: torch.Tensor,
        log_left: torch.Tensor,
        vocabulary: int,
        known: int | None = None,
    ) -> None:
        self.log_p, self.token, self.log_left, self.vocabulary, self.known = log_p, token, log_left, vocabulary, known
        self.states, self.head, self.norm = None, None, None
        self._hidden_states, self._attentions = None, None

    def within(self, vocabulary: int) -> Spread:
        known = min(vocabulary, self.vocabulary)
        return Spread(self.log_p, self.token, self.log_left, self.vocabulary, known)

    def logits_at(self, rows: torch.Tensor | slice) -> torch.Tensor:
        whole = _spread(self.log_p[rows], self.token[rows], self.log_left[rows], self.vocabulary)
        return whole[:, : self.known]

    @property
    def logits(self) -> torch.Tensor:
        return self.logits_at(slice(None))

    def __len__(self) -> int:
        return len(self.log_p)


def _spread(log_p: torch.Tensor, token: torch.Tensor, log_left: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """(reads, vocab) log-probabilities from (reads, k) of the largest and the mass of all others, (reads, 1)."""
    others = log_left - math.log(max(vocabulary - log_p.shape[1], 1))
    return others.expand(-1, vocabulary).scatter(1, token.long(), log_p)


def _ask(teacher: Cached, context: TeacherContext, folder: Path) -> None:
    from regraft.models.cost import Ledger, counted

    with counted(Ledger()) as counts:
        about = (_ask_hidden_states if teacher.keep == "hidden_states" else _ask_top_k)(teacher, context, folder)
    about["reported"] |= {"asked_tokens": counts.teacher_tokens, "asked_flops": counts.teacher_flops}
    _write(folder, about)


def _ask_hidden_states(teacher: Cached, context: TeacherContext, folder: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import save_file

    from regraft.models.forward import forward

    model = teacher.asked.checked(context).model
    states: list[torch.Tensor] = []
    spans: dict[str, tuple[int, int]] = {}
    for batch in context.questions():
        with torch.no_grad(), context.autocast():
            said = forward(model, batch).states
        assert said is not None
        _span(spans, batch)
        states.append(said.cpu())
    head = model.get_output_embeddings()
    tensors = {"weight": head.weight} | ({} if getattr(head, "bias", None) is None else {"bias": head.bias})
    # as the live teacher: without logits beyond the last token
    kept = {name: tensor[: context.student.vocabulary] for name, tensor in tensors.items()}
    save_file({"hidden_states": torch.cat(states)}, folder / ANSWERS)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in kept.items()}, folder / HEAD)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return {"spans": spans, "softcap": cap, "reported": {"parameters": model.num_parameters()}}


def _ask_top_k(teacher: Cached, context: TeacherContext, folder: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import save_file

    from regraft.distillation.losses.divergence import kl
    from regraft.models.likelihood import chunk

    reported: dict[str, Any] = {}
    answers = teacher.teacher.build(replace(context, report=reported.update))
    answered: list[dict[str, torch.Tensor]] = []
    spans: dict[str, tuple[int, int]] = {}
    divergence, distance, vocabulary = 0.0, 0.0, context.student.vocabulary
    size = chunk(vocabulary)
    for batch in context.questions():
        with context.autocast():
            said = answers(batch)
        _span(spans, batch)
        for start in range(0, len(said), size):
            log_p = torch.log_softmax(said.logits_at(slice(start, start + size)).float(), dim=1)
            top = log_p.topk(min(teacher.k, vocabulary), dim=1)
            log_left = log_p.scatter(1, top.indices, -torch.inf).logsumexp(dim=1, keepdim=True)
            kept = {"log_p": top.values, "token": top.indices.int(), "log_left": log_left}
            log_q = _spread(**kept, vocabulary=vocabulary)
            divergence += float(kl(log_p, log_q).sum())
            distance += float((log_p.exp() - log_q.exp()).abs().sum()) / 2
            answered.append({name: tensor.cpu() for name, tensor in kept.items()})
    tensors = {name: torch.cat([each[name] for each in answered]) for name in answered[0]}
    save_file(tensors, folder / ANSWERS)
    reads = len(tensors["log_p"])
    reported |= {"top_k_kl": divergence / reads, "top_k_total_variation": distance / reads}
    return {"spans": spans, "vocabulary": vocabulary, "reported": reported}


def _vocabulary(context: TeacherContext) -> str:
    """Digest of the student's: another one is asked for anew, and refused if it does not fit the teacher's."""
    head = context.student.model.get_output_embeddings()
    return digest([len(head.weight), sorted(context.student.tokenizer.get_vocab().items())])


def _span(spans: dict[str, tuple[int, int]], batch: Batch) -> None:
    """Note where the answers of each question of the batch will lie: behind those that came before."""
    import torch

    start, length = next(reversed(spans.values()), (0, 0))
    at = start + length
    counts: Sequence[int] = torch.bincount(batch.read_question, minlength=len(batch.ids)).tolist()
    for name, count in zip(batch.ids, counts, strict=True):
        spans[name] = (at, count)
        at += count


def _write(folder: Path, about: dict[str, Any]) -> None:
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")
