"""Losses against literal float64 transcriptions and cases done by hand."""

from __future__ import annotations

import math

import pytest
import torch

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.pseudo_label import PseudoLabel
from regraft.distillation.losses.weighted_sum import WeightedSum
from regraft.interfaces import Batch, EncodedQuestion, ModelOutputs
from regraft.tasks.packing import pack

QUESTIONS = [
    EncodedQuestion(id="a", context=(1, 2, 3), choices=((4, 5), (6,), (7, 8, 9)), answer=2),
    EncodedQuestion(id="b", context=(2, 1), choices=((5,), (6, 4)), answer=0),
]
VOCAB = 11


def batch(reads: str = "choices", positions: str = "answer", labelled: bool = True) -> Batch:
    return pack(QUESTIONS, reads, positions, 0, labelled=labelled)  # type: ignore[arg-type]


def logits(of: Batch, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(len(of.read), VOCAB, generator=generator)).to(dtype)


def literal_kl(teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> torch.Tensor:
    p = torch.softmax(teacher.double() / temperature, -1)
    q = torch.softmax(student.double() / temperature, -1)
    return temperature**2 * (p * (p.log() - q.log())).sum(-1).mean()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("positions", ["answer", "all"])
def test_kl_and_its_gradient_equal_the_formula_in_float64(temperature: float, positions: str) -> None:
    packed = batch(positions=positions, labelled=False)
    student, teacher = logits(packed, 1).requires_grad_(), logits(packed, 2)
    value = KL(temperature=temperature)(packed, ModelOutputs(logits=student), ModelOutputs(logits=teacher))
    (value.total / value.count).backward()
    literal = student.detach().double().requires_grad_()
    expected = literal_kl(teacher, literal, temperature)
    expected.backward()
    assert value.total.item() / value.count == pytest.approx(expected.item(), rel=1e-5)
    assert student.grad is not None and literal.grad is not None
    torch.testing.assert_close(student.grad.double(), literal.grad, rtol=1e-4, atol=1e-7)


def test_kl_is_the_same_however_many_chunks_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = batch(labelled=False)
    student, teacher = ModelOutputs(logits=logits(packed, 1)), ModelOutputs(logits=logits(packed, 2))
    whole = KL()(packed, student, teacher)
    monkeypatch.setattr("regraft.models.likelihood.CHUNK", 2 * VOCAB)
    assert float(KL()(packed, student, teacher).total) == pytest.approx(float(whole.total), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kl_of_a_model_to_itself_is_zero_with_zero_gradient(dtype: torch.dtype) -> None:
    packed = batch(labelled=False)
    teacher = logits(packed, 3, dtype)
    student = teacher.clone().requires_grad_()
    value = KL(temperature=2.0)(packed, ModelOutputs(logits=student), ModelOutputs(logits=teacher))
    value.total.backward()
    assert value.total.item() == 0
    assert student.grad is not None and not student.grad.any()


def test_kl_with_an_impossible_token_is_finite() -> None:
    packed = batch(labelled=False)
    teacher = logits(packed, 3)
    teacher[:, 0] = -torch.inf
    value = KL()(packed, ModelOutputs(logits=logits(packed, 4)), ModelOutputs(logits=teacher))
    assert math.isfinite(float(value.total))


def test_temperature_squared_keeps_the_gradient_level() -> None:
    packed = batch(labelled=False)
    norms = []
    for temperature in (4.0, 16.0):
        student = logits(packed, 1).requires_grad_()
        value = KL(temperature=temperature)(
            packed, ModelOutputs(logits=student), ModelOutputs(logits=logits(packed, 2))
        )
        value.total.backward()
        assert student.grad is not None
        norms.append(float(student.grad.norm()))
    assert 0.5 < norms[0] / norms[1] < 2  # without T^2 the quotient would be 16


def test_the_position_that_all_choices_share_counts_once() -> None:
    # a: the question's end and 1 + 0 + 2 positions inside the choices; b: 1 and 0 + 1
    assert KL()(batch(), *_outputs(batch())).count == (1 + 1 + 0 + 2) + (1 + 0 + 1)
    alone = batch("question", labelled=False)
    assert KL(reads="question")(alone, *_outputs(alone)).count == 2


def _outputs(of: Batch) -> tuple[ModelOutputs, ModelOutputs]:
    return ModelOutputs(logits=logits(of, 1)), ModelOutputs(logits=logits(of, 2))


def test_cross_entropy_is_the_mean_over_the_right_answers_tokens() -> None:
    packed = batch("gold")
    student = logits(packed, 5)
    value = CrossEntropy()(packed, ModelOutputs(logits=student), None)
    log_p = torch.log_softmax(student.double(), -1)
    # rows of `read`: a has the question's end and two positions inside (7, 8, 9); b the question's end only
    expected = -(log_p[0, 7] + log_p[1, 8] + log_p[2, 9] + log_p[3, 5])
    assert value.count == 4
    assert float(value.total) == pytest.approx(float(expected), rel=1e-6)


def test_cross_entropy_on_the_gold_of_all_choices_equals_gold_alone() -> None:
    alone, among = batch("gold"), batch("choices")
    torch.manual_seed(0)
    table = torch.randn(VOCAB, VOCAB)  # a bigram model: what a position says depends on its token only

    def say(of: Batch) -> ModelOutputs:
        return ModelOutputs(logits=table[of.input_ids.flatten()[of.read]])

    one, other = CrossEntropy()(alone, say(alone), None), CrossEntropy()(among, say(among), None)
    assert one.count == other.count
    assert float(one.total) == pytest.approx(float(other.total), rel=1e-6)


def test_cross_entropy_over_all_positions_adds_the_questions_tokens() -> None:
    packed = batch("gold", "all")
    student = torch.zeros(len(packed.read), VOCAB)
    value = CrossEntropy(positions="all")(packed, ModelOutputs(logits=student), None)
    assert value.count == 4 + 2 + 1  # the question's tokens but the first of each
    assert float(value.total) == pytest.approx(7 * math.log(VOCAB), rel=1e-6)


def test_pseudo_label_learns_the_choice_that_the_teacher_prefers() -> None:
    packed = batch(labelled=False)
    teacher = torch.zeros(len(packed.read), VOCAB)
    for option, wanted in ((0, 0), (1, 1)):  # a: choice 0; b: choice 1, neither is gold
        mine = (packed.option_question == option) & (packed.option_choice == wanted)
        tokens = mine[packed.token_option]
        teacher[packed.token_read[tokens], packed.token_id[tokens]] = 9.0
    student = logits(packed, 6)
    value = PseudoLabel()(packed, ModelOutputs(logits=student), ModelOutputs(logits=teacher))
    log_p = torch.log_softmax(student.double(), -1)
    chosen = [
        (int(read), int(token))
        for read, token, option in zip(packed.token_read, packed.token_id, packed.token_option, strict=True)
        if int(packed.option_choice[option]) == int(packed.option_question[option])
    ]
    assert value.count == 4
    assert float(value.total) == pytest.approx(-sum(float(log_p[read, token]) for read, token in chosen), rel=1e-6)


def test_pseudo_label_prefers_by_the_normalisation_asked_for() -> None:
    question = EncodedQuestion(id="q", context=(1, 2), choices=((4,), (5,)), characters=(1, 10))
    packed = pack([question], "choices", "answer", 0, labelled=False)
    teacher = torch.zeros(1, VOCAB)
    teacher[0, 4], teacher[0, 5] = 2.0, 1.0  # by sum the first, per character the second: -a/1 < -b/10
    log_p = torch.log_softmax(torch.arange(VOCAB, dtype=torch.float32)[None], -1)
    student = ModelOutputs(logits=torch.arange(VOCAB, dtype=torch.float32)[None])
    for normalisation, token in (("sum", 4), ("character", 5)):
        value = PseudoLabel(normalisation=normalisation)(packed, student, ModelOutputs(logits=teacher))  # type: ignore[arg-type]
        assert value.total.item() == pytest.approx(-log_p[0, token].item(), rel=1e-6)


def test_weighted_sum_weighs_means() -> None:
    packed = batch("choices")
    student, teacher = _outputs(packed)
    ce, kl = CrossEntropy(reads="choices"), KL()
    both = WeightedSum(terms={"ce": ce, "kl": kl}, weights={"ce": 0.25, "kl": 2.0})(packed, student, teacher)
    one, other = ce(packed, student, None), kl(packed, student, teacher)
    expected = 0.25 * float(one.total) / one.count + 2.0 * float(other.total) / other.count
    assert float(both.total) / both.count == pytest.approx(expected, rel=1e-6)


def test_weighted_sum_refuses_terms_that_read_different_texts() -> None:
    with pytest.raises(ConfigError, match=r"terms.ce.reads=gold, terms.kl.reads=choices"):
        WeightedSum(terms={"ce": CrossEntropy(), "kl": KL()})
    with pytest.raises(ConfigError, match="weights=typo: must be a name of a term"):
        WeightedSum(terms={"kl": KL()}, weights={"typo": 1.0})


def test_kl_refuses_a_temperature_of_zero() -> None:
    with pytest.raises(ConfigError, match="temperature=0.0: must be a finite number above 0"):
        KL(temperature=0.0)
