"""What the rooms hand each other. Nothing here imports torch: a config is checked before torch is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

if TYPE_CHECKING:
    from pathlib import Path

    import pandas
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from regraft.cache import Cache
    from regraft.records import Record, Row, StageRecord

Scoring = Literal["cloze", "letter"]
Reads = Literal["gold", "question", "choices", "drawn_choice"]
Positions = Literal["answer", "all"]
LossNeed = Literal["labels", "teacher_logits", "hidden_states", "attentions"]
"""What a loss asks for: answers; a teacher; of the student, and of the teacher if it `asks_teacher` for it, what each
layer says or where it looks."""


class Component:
    """Base of every class that a YAML file may name with `_target_`.

    A component is a frozen, keyword-only dataclass. It checks its ranges in `__post_init__` with
    `regraft.config.ranges.require`, documents each field, and imports torch inside methods only.
    """


# --------------------------------------------------------------------------------------------- questions


@dataclass(frozen=True, kw_only=True)
class UnlabelledQuestion:
    """What a label-free loss may see: a question and all its choices, in an order that the answer does not decide."""

    id: str
    question: str
    choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabelledQuestion:
    """A question with the number of its right choice. Deliberately no subclass of `UnlabelledQuestion`."""

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int

    @property
    def unlabelled(self) -> UnlabelledQuestion:
        return UnlabelledQuestion(id=self.id, question=self.question, choices=self.choices)


AnyQuestion = UnlabelledQuestion | LabelledQuestion


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The questions of a task, disjoint by id (recovery and preparation unless the task says otherwise).

    `recovery` and `preparation` are ordered so that a smaller set is a prefix of a larger one.
    `recovery` may hold unlabelled questions; all others are labelled. `selection` chooses hyper-parameters,
    `test` is what is reported.
    """

    preparation: tuple[LabelledQuestion, ...]
    recovery: tuple[LabelledQuestion, ...] | tuple[UnlabelledQuestion, ...]
    selection: tuple[LabelledQuestion, ...]
    test: tuple[LabelledQuestion, ...]


@dataclass(frozen=True, kw_only=True)
class EncodedQuestion:
    """A question as tokens: `context` once, then each of `choices` continues it on its own."""

    id: str
    context: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    answer: int | None = None
    characters: tuple[int, ...] = ()
    """Length of each choice's text in characters, for per-character scores; empty counts each as one."""
    unread: int = 0
    """Tokens at the beginning of the context that nothing is read at, whatever the positions: what a teacher is shown
    before the question."""

    @property
    def length(self) -> int:
        """Tokens of the question with all its choices: depends on no answer, so batches may be grouped by it."""
        return len(self.context) + sum(map(len, self.choices))


class Task(Component, ABC):
    """Multiple-choice questions and how they are asked."""

    name: str
    scoring: Scoring
    train_size: int | None

    @property
    @abstractmethod
    def labelled(self) -> bool:
        """Whether the recovery questions carry answers; known without reading them."""

    @abstractmethod
    def load(self, cache: Cache) -> Splits:
        """Read the questions and split them.

        Raises:
            ValueError: A row is malformed (the message names file, line and fault).
        """

    @abstractmethod
    def prompt(self, question: AnyQuestion) -> tuple[str, tuple[str, ...]]:
        """The text before the answer, and the text of each answer as it continues that prompt."""

    def about(self, question: AnyQuestion) -> Any:
        """What the question asks, as plain data: equal for questions of which one gives the other away.

        Questions of different tasks are compared by it, so it holds no id. Here: the words of the question and of its
        choices, in whatever order and case.
        """
        words = [" ".join(text.casefold().split()) for text in (question.question, *question.choices)]
        return (words[0], *sorted(words[1:]))

    @abstractmethod
    def identity(self, split: Literal["preparation", "recovery", "evaluation"]) -> dict[str, Any]:
        """What decides the content of `split`, as plain data; hashed into stage keys."""


# ------------------------------------------------------------------------------------------------ models


@dataclass
class LanguageModel:
    """A causal language model with its tokenizer, and how much of the dense model is left in it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    removed: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    """Structure name -> for each group the removed units, numbered as in the dense model."""
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    """Name of a parameter -> bool of its shape, True where a weight is kept: what sparsity within matrices removed. The
    weights that are gone are zero, and whoever changes weights keeps them so."""
    prompt: str = ""
    """What stands before every question that this model is asked. No checkpoint holds it."""

    @property
    def vocabulary(self) -> int:
        """Logits that mean a token: one more than the largest number that the tokenizer gives to one.

        Heads may have more, up to a round size, and those say nothing.
        """
        return 1 + max(self.tokenizer.get_vocab().values())

    @property
    def pad_token_id(self) -> int:
        """The token that fills up rows; no position attends to it."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)


class Model(Component, ABC):
    """Where a dense model comes from."""

    name: str

    @abstractmethod
    def load(self, cache: Cache) -> LanguageModel:
        """The model in evaluation mode on the CPU, in the dtype in which it was stored unless configured."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the weights, as plain data; hashed into stage keys."""


# ------------------------------------------------------------------------------------- batches and outputs


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Questions packed for one forward pass: each row holds a question once and, behind it, none, one or all choices.

    A choice sees the question and itself, never another choice; its last token, after which nothing is read, is left
    out of `input_ids`. The position whose next token all choices share (the
    last of the question) is read once.

    Shapes: `batch` rows, `seq` tokens a row, `reads` positions that are read, `tokens` answer tokens that are scored,
    `options` (question, choice) pairs.
    """

    ids: tuple[str, ...]
    input_ids: torch.Tensor
    """(batch, seq) long."""
    position_ids: torch.Tensor
    """(batch, seq) long; every choice starts right after the question."""
    visible: torch.Tensor
    """(batch, 1, seq, seq) bool; True where the query position (dim 2) may attend to the key position (dim 3)."""
    read: torch.Tensor
    """(reads,) long; positions of the flattened (batch * seq) whose next-token distribution counts, each once."""
    read_question: torch.Tensor
    """(reads,) long; the row that each read position belongs to."""
    token_read: torch.Tensor
    """(tokens,) long; for each answer token the index into `read` of the position that predicts it."""
    token_id: torch.Tensor
    """(tokens,) long; the answer token itself."""
    token_option: torch.Tensor
    """(tokens,) long; the option that each answer token belongs to."""
    option_question: torch.Tensor
    """(options,) long; the row of each option."""
    option_choice: torch.Tensor
    """(options,) long; the number of each option among the choices of its question."""
    option_characters: torch.Tensor
    """(options,) long; the length of each option's text in characters."""
    context_read: torch.Tensor
    """(contexts,) long; with positions = all, the index into `read` of each position that predicts a question token."""
    context_token: torch.Tensor
    """(contexts,) long; that question token."""
    answer: torch.Tensor | None = None
    """(batch,) long; the right choice. None in an unlabelled batch."""
    for_teacher: Batch | None = None
    """What the teacher reads in its place, such as the same questions behind examples: as many positions are read, in
    the same order. None: the same."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The map from the last hidden states to logits, in the precision in which the model was run.

    Applied outside of the forward pass, so that logits over the vocabulary are made where and when they are needed.
    """

    weight: torch.Tensor
    """(vocab, hidden_size); without graph if the model was run without."""
    bias: torch.Tensor | None
    """(vocab,)"""
    softcap: float | None
    """c of c tanh(z / c), where the architecture bounds its logits."""
    dtype: torch.dtype
    """In which the product is computed."""

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(n, hidden_size) -> (n, vocab)."""
        return self.capped(self.product(states))

    def product(self, states: torch.Tensor) -> torch.Tensor:
        """(n, hidden_size) -> (n, vocab): the logits before they are bounded."""
        import torch

        bias = None if self.bias is None else self.bias.to(self.dtype)
        with torch.autocast(states.device.type, enabled=False):
            return torch.nn.functional.linear(states.to(self.dtype), self.weight.to(self.dtype), bias)

    def capped(self, logits: torch.Tensor) -> torch.Tensor:
        import torch

        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def within(self, vocabulary: int) -> Head:
        """The map to the first `vocabulary` logits."""
        if len(self.weight) <= vocabulary:
            return self
        bias = None if self.bias is None else self.bias[:vocabulary]
        return replace(self, weight=self.weight[:vocabulary], bias=bias)


class ModelOutputs:
    """What a model says at the positions that a batch reads.

    Args:
        logits: (reads, vocab), where they are at hand; otherwise `states` and `head` make them.
        states: (reads, hidden_size), what enters the head.
        head: Makes logits of states.
        hidden_states: Each (reads, hidden_size), after the embedding and after each layer; the last one is after the
            final norm. Only for losses that need them.
        attentions: Each (reads, heads, seq), the attention of each layer from the read positions, in the order of the
            layers. Only for losses that need them.
        norm: The final norm, by which the hidden states of a layer can be read by the head.
    """

    def __init__(
        self,
        *,
        logits: torch.Tensor | None = None,
        states: torch.Tensor | None = None,
        head: Head | None = None,
        hidden_states: tuple[torch.Tensor, ...] | None = None,
        attentions: tuple[torch.Tensor, ...] | None = None,
        norm: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        assert logits is not None or (states is not None and head is not None), "logits, or what makes them"
        self.states, self.head, self.norm = states, head, norm
        self._hidden_states, self._attentions = hidden_states, attentions
        if logits is not None:
            self.logits = logits

    def parts(self) -> dict[str, Any]:
        """What it was made of."""
        return {
            "states": self.states,
            "head": self.head,
            "hidden_states": self._hidden_states,
            "attentions": self._attentions,
            "norm": self.norm,
        } | ({"logits": self.logits} if not self.lazy else {})

    @cached_property
    def logits(self) -> torch.Tensor:
        """(reads, vocab), all at once."""
        assert self.head is not None and self.states is not None
        return self.head(self.states)

    def logits_at(self, rows: torch.Tensor | slice) -> torch.Tensor:
        """(n, vocab): the logits at some of the read positions.

        Args:
            rows: (n,) long, or from where to where; among the read positions.
        """
        if not self.lazy:
            return self.logits[rows]
        assert self.head is not None and self.states is not None
        return self.head(self.states[rows])

    @property
    def lazy(self) -> bool:
        """Whether logits are still to be made, by `head` of `states`."""
        return "logits" not in vars(self)

    def within(self, vocabulary: int) -> ModelOutputs:
        """The same, of the first `vocabulary` tokens alone: the logits beyond enter no softmax."""
        parts = self.parts()
        if self.head is not None:
            parts["head"] = self.head.within(vocabulary)
        if not self.lazy:
            parts["logits"] = self.logits[:, :vocabulary]
        return ModelOutputs(**parts)

    def after(self, layer: int) -> ModelOutputs:
        """What it would say if its layers ended after `layer` of them: its hidden states there, normed, into the head.

        Args:
            layer: Number of layers that are passed, from 1 to all.
        """
        assert self.head is not None and self.norm is not None
        states = self.hidden_states[layer]
        # the last one is after the final norm already
        last = layer == len(self.hidden_states) - 1
        return ModelOutputs(states=states if last else self.norm(states), head=self.head)

    @property
    def hidden_states(self) -> tuple[torch.Tensor, ...]:
        assert self._hidden_states is not None, "only losses that declare the need of hidden_states get them"
        return self._hidden_states

    @property
    def attentions(self) -> tuple[torch.Tensor, ...]:
        assert self._attentions is not None, "only losses that declare the need of attentions get them"
        return self._attentions

    def __len__(self) -> int:
        return len(self.logits if self.states is None else self.states)


# --------------------------------------------------------------------------------------------- pruning


@dataclass(frozen=True, kw_only=True)
class Part:
    """What the units of a group own in one parameter of the model."""

    name: str
    """Of the matrix, the same in every architecture: `gate`, `up`, `down`, `query`, ...; of its bias `gate.bias`."""
    module: nn.Module
    attribute: str
    """Of `module`: `weight` or `bias`."""
    dimension: int
    """Of the parameter as it is stored, along which the units lie; of single weights, that of the outputs."""
    index: torch.Tensor | None
    """(units, width) long; the positions along `dimension` that each unit owns. None: each number is a unit."""
    side: Literal["writes", "reads", "scales"]
    """`writes`: rows of a linear map, which make the unit's activation; `reads`: columns, which take it up; `scales`:
    a norm's weight for it."""
    unit: int | None = None
    """The one unit that owns it, of which `index` speaks alone; None: `index` has a line for each unit of the group."""

    @property
    def parameter(self) -> nn.Parameter:
        parameter: nn.Parameter = getattr(self.module, self.attribute)
        return parameter

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """What each unit owns of `tensor`, of the parameter's shape: (units, numbers), a view where it can be."""
        turned = tensor.movedim(self.dimension, 0)
        if self.index is None:
            return turned.reshape(-1, 1)
        if not self.is_whole:
            turned = turned.index_select(0, self.index.flatten().to(tensor.device))
        return turned.reshape(len(self.index), -1)

    @property
    def is_whole(self) -> bool:
        """Whether the units own the parameter from first to last, in order."""
        if self.index is None:
            return True
        flat = self.index.flatten()
        size = self.parameter.shape[self.dimension]
        return len(flat) == size and bool((flat[1:] > flat[:-1]).all())


@dataclass(frozen=True, kw_only=True)
class Group:
    """Units of one kind that lie together: the neurons of one layer, the layers of a model, the weights of a matrix."""

    name: str
    """For people."""
    units: int
    parts: tuple[Part, ...]
    layer: int | None = None
    """Number of the decoder layer that it lies in; None: it spans the model."""

    @property
    def matrices(self) -> tuple[Part, ...]:
        """The matrices in which the units own weights; biases and norms follow them."""
        return tuple(part for part in self.parts if part.attribute == "weight" and part.side != "scales")

    def weights(self) -> dict[str, torch.Tensor]:
        """Name of each matrix -> (units, numbers): what each unit owns of it, without graph."""
        return self.gather(lambda part: part.parameter.detach())

    def gradients(self) -> dict[str, torch.Tensor]:
        """As `weights`, of the gradients that were left there by a backward pass."""

        def gradient(part: Part) -> torch.Tensor:
            assert part.parameter.grad is not None, f"{self.name}: {part.name} has no gradient"
            return part.parameter.grad

        return self.gather(gradient)

    def gather(self, tensor: Callable[[Part], torch.Tensor]) -> dict[str, torch.Tensor]:
        """Name of each matrix -> (units, numbers): what each unit owns of a tensor of the matrix's shape.

        Matrices of one name stand side by side (those of all layers, for a channel of the residual stream), or each
        unit has its own (layers): then the lines of smaller ones end in zeros, which move no norm and no sum.

        Args:
            tensor: Of the shape of the part's parameter.
        """
        import torch

        found: dict[str, list[torch.Tensor]] = {}
        lines: dict[str, list[torch.Tensor]] = {}
        for part in self.matrices:
            owned = part.of(tensor(part))
            if part.unit is None:
                found.setdefault(part.name, []).append(owned)
            else:
                lines.setdefault(part.name, []).append(owned[0])
        gathered = {name: each[0] if len(each) == 1 else torch.cat(each, dim=1) for name, each in found.items()}
        return gathered | {
            name: torch.nn.utils.rnn.pad_sequence(each, batch_first=True) for name, each in lines.items()
        }

    @property
    def readers(self) -> tuple[Part, ...]:
        """The linear maps that take up the units' activations: their inputs are what the units say."""
        return tuple(part for part in self.parts if part.side == "reads" and part.attribute == "weight")


Kind = Literal["neurons", "heads", "hidden", "layers", "weights"]
"""What sort of thing a unit is, for criteria that fit only some: `heads` are groups of keys and values with the query
heads that they serve."""
PruningNeed = Literal["calibration", "labels", "teacher_logits", "training"]
"""What a criterion or an allocation asks for: questions to score by, their answers, the dense model's logits, and
optimizer steps on the recovery's questions in the recovery's way."""


class Calibration(ABC):
    """Questions to score units by, and what the model makes of them."""

    @abstractmethod
    def batches(self, loss: Loss | None = None) -> Iterator[Batch]:
        """The calibration questions, on the model's device, the same in the same order each time.

        Packed as `loss` reads them; None: each question with all its choices, which no answer moves.
        """

    @abstractmethod
    def forward(self, model: LanguageModel, batch: Batch) -> ModelOutputs:
        """The model's answers, in the calibration's precision; with graph unless the caller switched it off."""

    @abstractmethod
    def value(self, model: LanguageModel, loss: Loss, batch: Batch) -> LossValue:
        """What `loss` says of the model's answers, against the dense model's if it needs them; with graph."""

    @abstractmethod
    def train(
        self,
        model: LanguageModel,
        loss: Loss,
        steps: int,
        *,
        learning_rate: float | None = None,
        terms: Sequence[Term] = (),
        on_gradients: Sequence[AfterStep] = (),
        after_step: Sequence[AfterStep] = (),
    ) -> None:
        """Train all weights of `model` in place, on the recovery's questions with the recovery's hyper-parameters.

        Without the recovery's adapters, if it has any: what trains here scores the weights themselves.

        Args:
            model: Whose weights move.
            loss: What is minimised.
            steps: Optimizer steps.
            learning_rate: In place of the recovery's.
            terms: Regularisers.
            on_gradients: Called with the gradients of each step, before they are clipped and used.
            after_step: Called after each optimizer step.
        """


@dataclass(frozen=True, kw_only=True)
class PruningContext:
    """What a criterion or an allocation may use besides the weights."""

    generator: torch.Generator
    """Seeded by the run's seed; only components with `uses_seed` may draw from it."""
    sparsity: float = 0.0
    """Share of the dense model's units that shall be gone after this step."""
    data: Calibration | None = None
    dense: Callable[[], LanguageModel] | None = None
    """The dense model, to look at: for budgets that are shares of it."""
    length: Callable[[], int] | None = None
    """Mean tokens of an evaluation question with one choice: for budgets of what one more token costs."""
    is_last: bool = True
    """Whether this is the schedule's last step, after which a budget must hold."""
    report: Callable[[Mapping[str, Any]], None] = lambda told: None
    """Takes plain data on how it was decided for the stage's record."""
    once: Callable[[str, Callable[[], Any]], Any] = lambda name, measure: measure()
    """Plain data that was measured under a name: what it was the first time, if the stage is done again."""
    once_of_dense: Callable[[str, Callable[[], Any]], Any] = lambda name, measure: measure()
    """The same of what was measured of the dense model on this machine, for all stages that prune it."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What a criterion measured for its scores and needs again to adjust weights, or an allocation or a budget that is
    asked about many amounts: so it is measured once."""

    @property
    def calibration(self) -> Calibration:
        """For components that declare the need of it."""
        assert self.data is not None, "only components that declare `needs` get calibration questions"
        return self.data


class Criterion(Component, ABC):
    """Scores the units of a structure: the lowest go first."""

    uses_seed: ClassVar[bool] = False
    kinds: ClassVar[frozenset[Kind]] = frozenset(get_args(Kind))
    """Kinds of units that it can score."""
    reads_sparsity: ClassVar[bool] = False
    """Whether its scores depend on the share of units that shall be gone, which must then be known before."""
    takes: ClassVar[frozenset[LossNeed]] = frozenset(get_args(LossNeed))
    """What a loss that it measures may ask for."""
    chooses: ClassVar[bool] = False
    """Whether `adjust` chooses the units, by scores that change while it goes."""

    @property
    def in_turn(self) -> bool:
        """Whether a decoder layer is scored by what the layers before it, pruned already, make of the questions.

        Then `scores` and `adjust` are called for one decoder layer after the other, with a structure of the units and a
        calibration of the questions as this layer sees them; structures that have no such part (`by_layer`) are scored
        at once all the same.
        """
        return False

    @property
    def needs(self) -> frozenset[PruningNeed]:
        """What it asks of the context."""
        return frozenset()

    @abstractmethod
    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        """One (units,) float tensor a group, for the units that are still there."""

    def adjust(
        self, model: LanguageModel, structure: Structure, keep: list[torch.Tensor], context: PruningContext
    ) -> list[torch.Tensor]:
        """Make up for what will go, before it goes: may change weights, and choose as many other units.

        Args:
            model: Before the removal.
            structure: Of the units.
            keep: (units,) bool for each group.
            context: As for `scores`.

        Returns:
            The units to keep.
        """
        return keep

    def biased(self, groups: Sequence[Group], keep: Sequence[torch.Tensor]) -> list[nn.Module]:
        """The linear maps to which `adjust` gives a bias if they have none: that costs parameters.

        Args:
            groups: Of the structure.
            keep: (units,) bool for each of them.
        """
        return []


class Structure(Component, ABC):
    """What is removed together: finds the units of a model and takes them out."""

    name: str
    kind: ClassVar[Kind]
    matrices: ClassVar[tuple[str, ...]]
    """Names of the matrices in which its units own something, in some architecture."""
    even: ClassVar[bool] = False
    """Whether every group must lose the same share: there is one group only, or a fixed pattern says how many go."""
    by_layer: ClassVar[bool] = False
    """Whether `of_layer` gives its part in one decoder layer."""

    @property
    def only_sparsity(self) -> float | None:
        """The sparsity besides 0 that a fixed pattern makes; None: any."""
        return None

    def of_layer(self, layer: int) -> Structure:
        """Its part in one decoder layer, which can be pruned apart from the others."""
        raise NotImplementedError

    @abstractmethod
    def groups(self, model: PreTrainedModel) -> list[Group]:
        """Groups of units that are there, in a fixed order."""

    def units(self, model: PreTrainedModel) -> list[int]:
        """Number of units in each group."""
        return [group.units for group in self.groups(model)]

    def left(self, model: LanguageModel) -> list[int]:
        """How many units of each group are still there."""
        return self.units(model.model)

    def there(self, model: LanguageModel) -> list[torch.Tensor] | None:
        """(units,) bool for each group, which units are still there; None: all that `groups` finds."""
        return None

    def select(self, group: Group, scores: torch.Tensor, left: int) -> torch.Tensor:
        """(units,) bool: the `left` units of highest score; of equal scores the lower number goes first."""
        import torch

        keep = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        keep[scores.argsort(stable=True)[: max(len(scores) - left, 0)]] = False
        return keep

    @abstractmethod
    def remove(self, model: LanguageModel, keep: Sequence[torch.Tensor]) -> None:
        """Keep only the units of `keep`, (units,) bool for each group, in place, and note which are gone."""

    def still_in(self, model: LanguageModel, pruned: LanguageModel) -> list[torch.Tensor]:
        """(units,) bool for each group of `model`: which `pruned` has too, that came of the same dense model."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A model whose units have scores: what an allocation decides on."""

    model: LanguageModel
    structure: Structure
    scores: Sequence[torch.Tensor]
    """(units,) for each group; of units that are gone already (masked) minus infinity. Empty where layers are scored
    in turn, which an allocation with `compares_scores` never meets."""
    dense_units: Sequence[int]
    """Units of each group in the dense model."""
    context: PruningContext


class Allocation(Component, ABC):
    """Decides how many units each group loses."""

    uses_seed: ClassVar[bool] = False
    even: ClassVar[bool] = False
    """Whether every group loses the same share."""
    compares_scores: ClassVar[bool] = True
    """Whether it needs the scores of all groups at once; otherwise it may be given none."""
    searches: ClassVar[bool] = False
    """Whether it tries models out, so that it cannot be asked about many shares to find one that meets a budget."""
    kinds: ClassVar[frozenset[Kind]] = frozenset(get_args(Kind))
    """Kinds of units that it can share out."""

    @property
    def needs(self) -> frozenset[PruningNeed]:
        """What it asks of the context."""
        return frozenset()

    def fits(self, structure: Structure) -> bool:
        """Whether there is anything to decide: groups that may lose unlike shares, or the same share for all."""
        decides = self.even or not (structure.even or structure.kind in ("hidden", "layers"))
        return decides and structure.kind in self.kinds

    @abstractmethod
    def losses(self, scored: Scored, sparsity: float) -> list[int]:
        """How many of its dense units each group has lost in the end, so that `sparsity` of all are gone.

        Raises:
            ConfigError: A group would lose more than it may.
        """


class Removal(ABC):
    """What a pruner would take out, by how much: units are scored, and nothing is gone yet."""

    name: str
    """Tells the removals of one stage apart."""
    most: float
    """The largest amount."""

    @abstractmethod
    def parameters(self, amount: float) -> int:
        """Of the whole model, after this amount is gone: by a formula, nothing is cut.

        Args:
            amount: The share of the dense model's units; of several structures what their weights multiply.

        Raises:
            ConfigError: A group would lose more than it may.
        """

    @abstractmethod
    def macs(self, amount: float, context: int) -> int:
        """Multiply-accumulates of a token at the end of `context` tokens, as `parameters`."""

    @abstractmethod
    def candidate(self, amount: float) -> LanguageModel:
        """A copy of the model of which this amount is gone: for its shape, its weights are not made up for."""


class Budget(Component, ABC):
    """Of what `sparsity` is the share, or what the pruned model may cost at most."""

    kinds: ClassVar[frozenset[Kind]] = frozenset(get_args(Kind))
    """Kinds of units that save some of it when they go."""
    tries: ClassVar[bool] = True
    """Whether it asks the allocation about many amounts."""
    reads_length: ClassVar[bool] = False
    """Whether it depends on how long the evaluation's questions are."""

    @abstractmethod
    def amount(self, removal: Removal, sparsity: float, context: PruningContext) -> float:
        """How much is to be taken out, and reports what it comes to.

        Raises:
            ConfigError: It cannot be met; the message says what can be reached.
        """


class Schedule(Component, ABC):
    """When how much is removed."""

    during_recovery: ClassVar[bool] = False
    """Whether it moves masks while the recovery trains."""

    @abstractmethod
    def targets(self, sparsity: float) -> tuple[float, ...]:
        """Cumulative sparsity after each pruning step; the last is `sparsity`."""

    def share_of_recovery(self, sparsity: float) -> tuple[float, ...]:
        """The share of the recovery's steps that follows each pruning step; sums to 1, so that totals are equal."""
        number = len(self.targets(sparsity))
        return (1.0 / number,) * number

    def seams(self, student: LanguageModel, structure: Structure, steps: int, seed: int) -> Seams:
        """What a recovery of `steps` steps calls, so that `student`'s masks move; for schedules `during_recovery`.

        What is done at a step depends on that step and the student alone: an interrupted training goes on anywhere.
        """
        return Seams()


# ------------------------------------------------------------------------------------------ distillation


@dataclass(frozen=True, kw_only=True)
class LossValue:
    """A sum over what counts, and how much counts; the mean over an optimizer step is total / count."""

    total: torch.Tensor
    """() with graph."""
    count: int


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When in a training a loss is computed, and what it may use there."""

    share: float = 0.0
    """Of the steps over which the learning rate takes its course, those that are done: from 0, and below 1."""
    generator: torch.Generator | None = None
    """For losses that draw; seeded by the run's seed and the step, so that a step that is done again draws the same."""
    learned: nn.Module | None = None
    """What the loss learns besides the student: what its `learns` made."""

    @property
    def drawing(self) -> torch.Generator:
        """For losses that declare `uses_seed`."""
        assert self.generator is not None, "a training gives a generator"
        return self.generator


BEGINNING = Moment()
"""Of a loss that is computed outside of a training."""


class Loss(Component, ABC):
    """What recovery minimises. Without `labels` in its needs it gets unlabelled batches."""

    trains: ClassVar[bool] = True
    uses_seed: ClassVar[bool] = False
    """Whether it draws: what it says of the same outputs depends on the moment."""

    @property
    @abstractmethod
    def needs(self) -> frozenset[LossNeed]: ...

    @property
    def learning(self) -> bool:
        """Whether `learns` makes something."""
        return False

    @property
    def same_width(self) -> bool:
        """Whether it compares student and teacher channel by channel of the residual stream."""
        return False

    @property
    @abstractmethod
    def reads(self) -> Reads:
        """Which text a batch holds: the question with the gold choice, alone, with all choices, or with one drawn."""

    @property
    @abstractmethod
    def positions(self) -> Positions:
        """Which positions are read: those that predict the answer, or all."""

    @abstractmethod
    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        """The sum over what counts in a batch.

        Args:
            batch: What was read.
            student: With graph.
            teacher: Without graph, at the same positions; None for losses that declare no need of it.
            moment: When in the training.
        """

    @property
    def compares_choices(self) -> bool:
        """Whether it weighs the choices of a question against one another: what somebody wrote has no other."""
        return False

    @property
    def asks_teacher(self) -> frozenset[LossNeed]:
        """What of its needs it asks of the teacher too."""
        return self.needs - {"labels"} if "teacher_logits" in self.needs else frozenset()

    @property
    def compares_questions(self) -> int:
        """Fewest questions of one forward pass that it compares with one another; 1: it takes each on its own."""
        return 1

    @property
    def ends_with_question(self) -> bool:
        """Whether all that it looks at is the question: what stands behind it counts for nothing."""
        return False

    @property
    def rests(self) -> bool:
        """Whether a student that says what its teacher says has no gradient."""
        return False

    @property
    def drawn_with(self) -> float | None:
        """The share of the teacher in the distribution that its texts must be drawn from; None takes any text."""
        return None

    def learns(self, student: ModelOutputs, teacher: ModelOutputs | None) -> nn.Module | None:
        """What is trained beside the student and thrown away with the training, such as a projection.

        Args:
            student: What it says to the first batch: for its sizes.
            teacher: Likewise.
        """
        return None


Term = Callable[["PreTrainedModel"], "torch.Tensor"]
"""A regulariser: the model's weights -> (), added to the mean loss of each step."""
AfterStep = Callable[["PreTrainedModel", int], None]
"""What holds a mask, grows and drops, or averages: called with the number of the step that was taken (from 1)."""


@dataclass(frozen=True, kw_only=True)
class Seams:
    """What a training calls besides its loss."""

    terms: tuple[Term, ...] = ()
    on_gradients: tuple[AfterStep, ...] = ()
    """With the gradients of each step, those of masked weights among them."""
    after_step: tuple[AfterStep, ...] = ()


class Answers:
    """What a teacher says to batches."""

    def __call__(self, batch: Batch) -> ModelOutputs:
        """Without graph, on the batch's device, at the positions that the batch reads.

        Forward passes by `regraft.models.forward` are counted as the teacher's cost.
        """
        raise NotImplementedError

    def after_step(self, student: PreTrainedModel, step: int) -> None:
        """Called after each optimizer step, for teachers that follow the student; `step` counts from 1."""

    def state(self) -> dict[str, torch.Tensor]:
        """What an interrupted training needs to go on with this teacher."""
        return {}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Go back to what `state` gave."""


@dataclass(frozen=True, kw_only=True)
class TeacherContext:
    """What a teacher may use."""

    dense: Callable[[], LanguageModel]
    """Loads the prepared dense model."""
    dense_key: str
    """Names its weights."""
    student: LanguageModel
    """The model that learns."""
    cache: Cache
    questions: Callable[[], Iterable[Batch]]
    """Every question that will be learned from once, packed as the loss reads it, on the student's device."""
    questions_key: str
    """Names these batches, all that decides how they are computed included."""
    autocast: Callable[[], AbstractContextManager[Any]]
    """The precision in which student and teacher compute."""
    report: Callable[[Mapping[str, Any]], None]
    """Takes plain data on the teacher for the stage's record. `asked_tokens` and `asked_flops`, what was read and
    computed before the training, are part of its cost."""
    needs: frozenset[LossNeed] = frozenset()
    """What the loss asks the teacher for."""
    previous: Callable[[], LanguageModel] | None = None
    """Loads the model that left the run's recovery before this one, the dense one before the first; for teachers with
    `reads_previous`."""
    previous_key: str = ""
    """Names its weights."""
    longest: int = 0
    """Most positions of a text that it will be asked about, as far as known."""


class Teacher(Component, ABC):
    """Answers batches with logits."""

    gives: ClassVar[frozenset[LossNeed]] = frozenset({"teacher_logits", "hidden_states", "attentions"})
    """Needs of losses that it can meet."""
    asks_before: ClassVar[bool] = False
    """Whether it must see all batches before the training begins."""
    writes: ClassVar[bool] = False
    """Whether `writer` gives a model."""
    reads_previous: ClassVar[bool] = False
    """Whether the recovery before this one made it."""
    follows: ClassVar[bool] = False
    """Whether it is made of the student's own weights while they train."""

    @property
    def starts_as_student(self) -> bool:
        """Whether the student says what this teacher says before the first step, whatever was pruned."""
        return False

    @property
    def shaped_as_dense(self) -> bool:
        """Whether the student must have the dense model's shapes."""
        return False

    @property
    def tasks(self) -> frozenset[str] | None:
        """The tasks of a union whose questions alone it can answer, by name; None: it answers all."""
        return None

    def members(self) -> Iterator[Teacher]:
        """Itself, and the teachers that it is made of."""
        yield self

    def writer(self, context: TeacherContext) -> LanguageModel:
        """The one model that teaches, for batches that it writes; on the student's device."""
        raise NotImplementedError

    def writer_identity(self, dense: str, previous: str) -> Any:
        """Plain data that names the weights of `writer`: equal for teachers that write the same.

        Args:
            dense: Names the dense model.
            previous: Names the model that left the run's recovery before, for teachers with `reads_previous`.
        """
        raise NotImplementedError

    @abstractmethod
    def build(self, context: TeacherContext) -> Answers:
        """A function of batches.

        Raises:
            ValueError: Teacher and student differ in vocabulary.
        """


class BatchSource(ABC):
    """Feeds a training: what is read at each step."""

    @abstractmethod
    def step(self, number: int, student: LanguageModel) -> Iterator[tuple[Batch, int]]:
        """The parts of optimizer step `number` (from 0), each with the number of its questions.

        A part with 0 questions is read and counts for nothing. The same step gives the same parts, for the same
        student.

        Args:
            number: Counted from the first step that this source feeds.
            student: As it is then, for sources that let it write.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of what is read in which order. The same for every loss."""

    def fingerprints(self) -> list[str]:
        """After each step a digest of what was read up to there; of what is not known before, none.

        By the last digest of the shorter of two trainings one sees whether the longer began with the same batches.
        """
        return []

    def each(self) -> Iterator[Batch]:
        """Every text once, in batches that the hyper-parameters of training do not move.

        Only sources whose texts are `known` before the training have this.
        """
        raise NotImplementedError

    def content(self) -> str:
        """Digest of everything that can be read."""
        raise NotImplementedError

    def longest(self) -> int:
        """Most positions of a text as the teacher reads it, as far as known before the training."""
        return 0


@dataclass(frozen=True, kw_only=True)
class BatchContext:
    """What batches may be made of."""

    student: LanguageModel
    """As it enters the training."""
    task: Task
    questions: Sequence[AnyQuestion]
    """The recovery's; with answers only if the loss needs labels."""
    encode: Callable[[Sequence[AnyQuestion]], list[EncodedQuestion]]
    """As the model's tokens."""
    loss: Loss
    batch_size: int
    accumulation: int
    seed: int
    first: int
    """Number of the run's first step that is fed."""
    steps: int
    rank: int = 0
    """Of the processes that train together, which one this is."""
    processes: int = 1
    cache: Cache
    writer: Callable[[], LanguageModel]
    """Loads the model that teaches; for batches with `needs_writer`."""
    writer_key: Any
    """Names its weights: plain data."""
    autocast: Callable[[], AbstractContextManager[Any]]
    """The precision in which student and teacher compute."""
    report: Callable[[Mapping[str, Any]], None] = lambda told: None
    """Takes plain data on what was written for the stage's record. `written_tokens` and `written_flops`, what writing
    it read and computed, are part of the training's cost."""
    preparation: Callable[[], Sequence[AnyQuestion]] = lambda: ()
    """The questions of preparation, none of which recovery asks; with answers only for batches with `shows_labels`."""


class Batches(Component, ABC):
    """What the recovery reads: a regime."""

    known: ClassVar[bool] = True
    """Whether all texts are known before the training begins: then a teacher can be asked about them once."""
    written: ClassVar[bool] = False
    """Whether texts are written: one behind the question, in place of its choices."""
    labelled: ClassVar[bool] = True
    """Whether a loss that needs labels finds them."""

    @property
    def needs_writer(self) -> bool:
        """Whether the teacher writes, or helps to write, what is read."""
        return False

    @property
    def follows(self) -> bool:
        """Whether the student writes as it is at each step."""
        return False

    @property
    def shows(self) -> int:
        """Number of preparation's questions that the teacher is shown before each question, and the student is not."""
        return 0

    @property
    def shows_labels(self) -> bool:
        """Whether right answers are in what the teacher is shown."""
        return False

    @property
    def of_task(self) -> bool:
        """Whether each text belongs to a question of the run's task, which its id begins with."""
        return True

    @property
    def drawn_with(self) -> float | None:
        """The share of the teacher in the distribution that texts are drawn from, its temperature being 1.

        None: it is another distribution, or not all texts are drawn.
        """
        return None

    def texts(self, questions: int) -> int:
        """How many texts make an epoch.

        Args:
            questions: Of the recovery.
        """
        return questions

    @abstractmethod
    def source(self, context: BatchContext) -> BatchSource:
        """The batches of one training."""


# ----------------------------------------------------------------------------------------------- export


class Exporter(Component, ABC):
    """Writes a model into a folder, in a format that other programs load."""

    file: ClassVar[str] = "config.json"
    """What the folder has if the model is there in this format."""
    uneven: ClassVar[bool] = True
    """Whether layers may have different widths."""
    library: ClassVar[tuple[str, str] | None] = None
    """Module that it needs, and the extra that brings it; None: it needs none."""

    @abstractmethod
    def write(self, model: LanguageModel, folder: Path) -> None:
        """Write the model with its tokenizer, aside first: what is in `folder` is replaced by all of it or not at all.

        Raises:
            ValueError: The format cannot hold the model; the message says why, and what to choose.
        """


# --------------------------------------------------------------------------------------------- tracking


class Tracker(Component, ABC):
    """Mirror of a run for people to watch. The record on disk is the truth: a tracker that fails fails no run."""

    title: ClassVar[str] = "the tracker"
    """What messages call it."""
    later: ClassVar[str] = ""
    """What to do about a run that it could not mirror."""

    @abstractmethod
    def start(self, run: RunInfo) -> RunLog:
        """Begin to mirror a run, or go on with it.

        Raises:
            Exception: Of any kind; the run goes on without a mirror.
        """


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a tracker needs to name and group a run."""

    run_id: str
    sweep: str
    config: Mapping[str, Any]
    """The resolved config as plain data."""
    choices: Mapping[str, str]
    """The chosen YAML of each config group."""
    environment: Mapping[str, Any]
    """As in the record."""
    folder: Path
    """The run's folder."""

    @property
    def name(self) -> str:
        """For people: `l2 50% kl seed 0`."""
        criterion, loss = (self.choices.get(group, "") for group in ("pruner/criterion", "loss"))
        if not self.choices:
            return f"{self.config.get('evaluate')}"  # a checkpoint of which no more is known
        sparsity = f"{100 * float(self.config['sparsity']):g}%"
        return " ".join(filter(None, [criterion, sparsity, loss, f"seed {self.config['seed']}"]))

    @property
    def tags(self) -> tuple[str, ...]:
        """What runs of many sweeps are found by."""
        groups = ("model", "task", "pruner/criterion", "schedule")
        return tuple(self.choices[group] for group in groups if group in self.choices)


class RunLog(ABC):
    """An open run of a tracker. Its calls come in the order of the run, and again in the same order if it is resumed.

    What was said before may be said again: by a run that was stopped, by stages that the cache knew, and by a record
    that is mirrored later.
    """

    @abstractmethod
    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers of an optimizer step, counted over all recover stages of the run, from 1."""

    @abstractmethod
    def stage(self, stage: StageRecord, rows: Sequence[Row], tables: Mapping[str, pandas.DataFrame]) -> None:
        """What a stage did and measured, with its tables by file name; after its steps."""

    @abstractmethod
    def finish(self, record: Record | None) -> None:
        """The run has ended, `record.status` says how, and its tables are in its folder.

        None: it was stopped and goes on another time.
        """
