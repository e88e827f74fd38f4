"""What models write: as their logits say, whatever is written beside it, and by models of any shape."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from architectures import ARCHITECTURES, VOCABULARY
from writers import END, encoded, language_model

from regraft.config.ranges import ConfigError
from regraft.interfaces import EncodedQuestion, LanguageModel
from regraft.models.cost import Cost, Extent, Ledger, counted
from regraft.pruning.structures.layers import Layers
from regraft.pruning.structures.mlp_neurons import MlpNeurons
from regraft.recovery.writing import write


def said(model: LanguageModel, text: tuple[int, ...]) -> torch.Tensor:
    """(vocab,): the logits behind a text that is read at once and alone."""
    with torch.no_grad():
        return model.model(torch.tensor([text])).logits[0, -1]


def likeliest(model: LanguageModel, context: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    text: tuple[int, ...] = ()
    while len(text) < tokens and END not in text:
        text += (int(said(model, context + text).argmax()),)
    return text


def made(architecture: str, pruned: bool) -> LanguageModel:
    model = language_model(architecture)
    # a head that is sharp enough for no two tokens to be alike
    model.model.get_output_embeddings().weight.data.mul_(3)
    if pruned:
        layers = Layers()
        groups = layers.groups(model.model)
        layers.remove(model, [torch.tensor([False, True, True])])
        neurons = MlpNeurons()
        groups = neurons.groups(model.model)
        keep = [torch.arange(group.units) % (2 + number) == 0 for number, group in enumerate(groups)]
        neurons.remove(model, keep)
    return model


@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_texts_are_what_the_model_says_when_it_reads_each_alone(architecture: str, pruned: bool) -> None:
    """Padding on the left, the cache and a first layer that is gone change nothing; gemma3 has a sliding window."""
    model, asked = made(architecture, pruned), encoded(6, tokens=12)
    texts = write([(model, 1.0)], asked, tokens=6, temperature=0)
    assert [text.id for text in texts] == [question.id for question in asked]
    for question, text in zip(asked, texts, strict=True):
        assert text.context == question.context and text.answer is None
        assert text.choices == (likeliest(model, question.context, 6),)


def ending(model: LanguageModel, after: int) -> LanguageModel:
    """A model whose position decides what it says: the end comes after so many tokens."""
    table = torch.zeros(VOCABULARY)

    def forward(input_ids: torch.Tensor, position_ids: torch.Tensor, **settings: object) -> object:
        logits = table.repeat(*input_ids.shape, 1)
        logits[..., 7] = 50.0
        logits[position_ids >= after, END] = 100.0
        return type("Said", (), {"logits": logits[:, -1:]})

    model.model.forward = forward  # type: ignore[method-assign, assignment]
    return model


def test_a_text_ends_with_the_end_and_the_others_go_on() -> None:
    short, long = (EncodedQuestion(id=str(n), context=(5,) * n, choices=()) for n in (2, 4))
    texts = write([(ending(language_model(), 5), 1.0)], [long, short], tokens=9, temperature=0)
    assert [text.choices for text in texts] == [((7, 7, END),), ((7, 7, 7, 7, END),)]
    cut = write([(ending(language_model(), 5), 1.0)], [long, short], tokens=3, temperature=0)
    assert [text.choices for text in cut] == [((7, 7, END),), ((7, 7, 7),)]


def test_what_is_drawn_depends_on_seed_and_question_alone() -> None:
    model, asked = language_model(), encoded(7)
    together = write([(model, 1.0)], asked, tokens=5, temperature=1.0, seed=3)
    apart = [write([(model, 1.0)], [question], tokens=5, temperature=1.0, seed=3)[0] for question in reversed(asked)]
    assert together == apart[::-1]
    assert together != write([(model, 1.0)], asked, tokens=5, temperature=1.0, seed=4)
    greedy = write([(model, 1.0)], asked, tokens=5, temperature=0, seed=3)
    first = write([(model, 1.0)], asked, tokens=5, temperature=1.0, seed=3, greedy=2)
    assert [text.choices[0][:2] for text in first] == [text.choices[0][:2] for text in greedy]
    assert [text.choices[0][2:] for text in first] != [text.choices[0][2:] for text in greedy]


@pytest.mark.parametrize(("alpha", "temperature"), [(0.0, 1.0), (0.0, 0.5), (0.3, 1.0)])
def test_tokens_come_as_often_as_the_mixture_says(alpha: float, temperature: float) -> None:
    student, teacher = language_model(seed=0), language_model(seed=1)
    number, context = 3000, (5, 9, 11)
    asked = [EncodedQuestion(id=str(n), context=context, choices=()) for n in range(number)]
    writers = [(student, 1 - alpha)] + ([(teacher, alpha)] if alpha else [])
    texts = write(writers, asked, tokens=1, temperature=temperature, seed=0)
    counts = Counter(text.choices[0][0] for text in texts)
    p = sum(share * torch.softmax(said(model, context).double() / temperature, 0) for model, share in writers)
    assert isinstance(p, torch.Tensor)
    for token in p.topk(8).indices.tolist():
        expected = number * float(p[token])
        assert abs(counts[token] - expected) < 4 * math.sqrt(expected) + 1


def test_rows_of_a_padded_vocabulary_are_never_written() -> None:
    model = language_model()
    model.model.get_output_embeddings().weight.data[-4:] *= 100
    # numbers that are no token's lie between those that are
    there = {f"token{number}": number for number in range(0, VOCABULARY - 4, 2)}
    model.tokenizer.get_vocab = lambda: there  # type: ignore[method-assign]
    texts = write([(model, 1.0)], encoded(20), tokens=4, temperature=1.0, seed=0)
    written = {token for text in texts for token in text.choices[0]}
    assert len(there) < max(written) < VOCABULARY - 4


def test_a_text_beyond_the_models_context_is_refused() -> None:
    model = language_model()
    long = EncodedQuestion(id="long", context=(5,) * 1020, choices=())
    with pytest.raises(ConfigError, match=r"batches\.tokens=6: must be at most 5 with question long"):
        write([(model, 1.0)], [long], tokens=6, temperature=0)
    # the last token is read by nobody
    assert len(write([(model, 1.0)], [long], tokens=5, temperature=0)[0].choices[0]) <= 5


def test_what_writing_reads_and_computes_is_counted_as_if_each_text_were_written_alone() -> None:
    student, teacher = language_model(), language_model(seed=1, intermediate_size=16)
    writers, asked = [(student, 0.5), (teacher, 0.5)], encoded(40)
    with counted(Ledger()) as counts:
        texts = write(writers, asked, tokens=9, temperature=1.0, seed=1)
    tokens, flops = 0, 0
    for text in texts:
        length, reads = len(text.context), len(text.choices[0])
        pairs = sum(range(1, length + reads))
        tokens += 2 * (length + reads - 1)
        for model, _ in writers:
            extent = Extent(positions=length + reads - 1, pairs=pairs, reads=reads)
            flops += Cost.of(model.model).forward(extent)
    assert len({len(text.choices[0]) for text in texts}) > 1, "some end early, and cost less"
    assert (counts.teacher_tokens, counts.teacher_flops, counts.tokens, counts.flops) == (tokens, flops, 0, 0)
