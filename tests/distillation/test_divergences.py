"""Losses between next-token distributions, against their formulas in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.jsd import JSD
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.next_token import NextToken
from regraft.distillation.losses.reverse_kl import ReverseKL
from regraft.distillation.losses.sampled_kl import SampledKL
from regraft.distillation.losses.skew_kl import SkewKL
from regraft.distillation.losses.skew_reverse_kl import SkewReverseKL
from regraft.distillation.losses.standardised_kl import StandardisedKL
from regraft.distillation.losses.top_k_kl import TopKKL
from regraft.distillation.losses.total_variation import TotalVariation
from regraft.interfaces import Batch, EncodedQuestion, LossValue, ModelOutputs, Moment
from regraft.tasks.packing import pack

QUESTIONS = [
    EncodedQuestion(id="a", context=(1, 2, 3), choices=((4, 5), (6,), (7, 8, 9)), answer=2),
    EncodedQuestion(id="b", context=(2, 1), choices=((5,), (6, 4)), answer=0),
]
VOCAB = 11
BATCH = pack(QUESTIONS, "choices", "answer", 0, labelled=False)
Row = Sequence[float]
Literal = Callable[[Row, Row, float], float]
"""Of the teacher's logits, the student's and T, at one position."""


def softmax(logits: Row, temperature: float) -> list[float]:
    powers = [math.exp((each - max(logits)) / temperature) for each in logits]
    return [each / sum(powers) for each in powers]


def kl(p: Row, q: Row) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def mixed(share: float, p: Row, q: Row) -> list[float]:
    return [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]


def distributions(formula: Callable[[Row, Row], float]) -> Literal:
    """T^2 times a formula of p (teacher) and q (student)."""
    return lambda z, s, t: t**2 * formula(softmax(z, t), softmax(s, t))


def total_variation(z: Row, s: Row, t: float) -> float:
    return t * sum(abs(a - b) for a, b in zip(softmax(z, t), softmax(s, t), strict=True)) / 2


def bucketed(k: int) -> Literal:
    def value(z: Row, s: Row, t: float) -> float:
        p, q = softmax(z, t), softmax(s, t)
        top = sorted(range(len(z)), key=lambda token: -z[token])[:k]
        inside = sum(p[v] * math.log(p[v] / q[v]) for v in top)
        rest_p, rest_q = 1 - sum(p[v] for v in top), 1 - sum(q[v] for v in top)
        return t**2 * (inside + rest_p * math.log(rest_p / rest_q))

    return value


def renormalised(k: int) -> Literal:
    def value(z: Row, s: Row, t: float) -> float:
        top = sorted(range(len(z)), key=lambda token: -z[token])[:k]
        return t**2 * kl(softmax([z[v] for v in top], t), softmax([s[v] for v in top], t))

    return value


def standardised(z: Row, s: Row, t: float) -> float:
    def scaled(logits: Row) -> list[float]:
        mean = sum(logits) / len(logits)
        deviation = math.sqrt(sum((each - mean) ** 2 for each in logits) / len(logits))
        return [(each - mean) / deviation for each in logits]

    return t**2 * kl(softmax(scaled(z), t), softmax(scaled(s), t))


def jensen_shannon(beta: float) -> Literal:
    return distributions(
        lambda p, q: beta * kl(p, mixed(beta, p, q)) + (1 - beta) * kl(q, mixed(beta, p, q)),
    )


def label(loss: NextToken) -> str:
    return type(loss).__name__


CASES: list[tuple[NextToken, Literal]] = [
    (KL(), distributions(kl)),
    (ReverseKL(), distributions(lambda p, q: kl(q, p))),
    (SkewKL(), distributions(lambda p, q: kl(p, mixed(0.1, p, q)))),
    (SkewKL(alpha=0.6), distributions(lambda p, q: kl(p, mixed(0.6, p, q)))),
    (SkewKL(alpha=0.0), distributions(kl)),
    (SkewReverseKL(), distributions(lambda p, q: kl(q, mixed(0.9, p, q)))),
    (SkewReverseKL(alpha=0.6), distributions(lambda p, q: kl(q, mixed(0.4, p, q)))),
    (SkewReverseKL(alpha=0.0), distributions(lambda p, q: kl(q, p))),
    (JSD(), jensen_shannon(0.5)),
    (JSD(beta=0.1), jensen_shannon(0.1)),
    (JSD(beta=0.97), jensen_shannon(0.97)),
    (TotalVariation(), total_variation),
    (TopKKL(k=3), bucketed(3)),
    (TopKKL(k=1), bucketed(1)),
    (TopKKL(k=VOCAB), distributions(kl)),
    (TopKKL(k=3, rest="renormalised"), renormalised(3)),
    (StandardisedKL(), standardised),
]
LOSSES = [JSD(beta=0.0), JSD(beta=1.0), SampledKL(samples=200), SampledKL(exponent=0.7), *(loss for loss, _ in CASES)]


def logits(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(len(BATCH.read), VOCAB, generator=generator)).to(dtype)


def moment(seed: int = 0) -> Moment:
    return Moment(generator=torch.Generator().manual_seed(seed))


def said(loss: NextToken, student: torch.Tensor, teacher: torch.Tensor, of: Batch = BATCH) -> LossValue:
    return loss(of, ModelOutputs(logits=student), ModelOutputs(logits=teacher), moment())


def with_temperature(loss: NextToken, temperature: float) -> NextToken:
    return replace(loss, temperature=temperature)


def check(loss: NextToken, formula: Callable[[int, Row, Row], float]) -> None:
    """Mean and gradient against `formula` of a position's number, teacher and student, by central differences."""
    student, teacher = logits(1).requires_grad_(), logits(2)
    value = said(loss, student, teacher)
    (value.total / value.count).backward()
    assert value.count == len(BATCH.read)
    rows, taught = student.detach().double().tolist(), teacher.double().tolist()
    expected = sum(formula(n, z, s) for n, (z, s) in enumerate(zip(taught, rows, strict=True))) / len(rows)
    assert value.total.item() / value.count == pytest.approx(expected, rel=2e-5)
    step = 1e-5
    assert student.grad is not None
    for number, (z, s) in enumerate(zip(taught, rows, strict=True)):
        for token in range(VOCAB):
            up, down = ([*s[:token], s[token] + sign * step, *s[token + 1 :]] for sign in (1, -1))
            slope = (formula(number, z, up) - formula(number, z, down)) / (2 * step) / len(rows)
            assert float(student.grad[number, token]) == pytest.approx(slope, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.7, 3.0])
@pytest.mark.parametrize(
    ("loss", "formula"), CASES, ids=lambda each: label(each) if isinstance(each, NextToken) else ""
)
def test_value_and_gradient_equal_the_formula(loss: NextToken, formula: Literal, temperature: float) -> None:
    check(with_temperature(loss, temperature), lambda number, z, s: formula(z, s, temperature))


@pytest.mark.parametrize("exponent", [1.0, 0.6])
def test_the_sampled_kl_equals_the_formula_on_its_draws(exponent: float) -> None:
    samples, t = 5, 2.0
    drawn = torch.rand(len(BATCH.read), samples, generator=moment().drawing, dtype=torch.float64).tolist()

    def formula(number: int, z: Row, s: Row) -> float:
        p, q = softmax(z, t), softmax(s, t)
        powers = [each**exponent for each in p]
        r = [each / sum(powers) for each in powers]
        value = 0.0
        for chance in drawn[number]:
            token, below = 0, r[0]
            while below <= chance:
                token += 1
                below += r[token]
            value += p[token] / (samples * r[token]) * math.log(p[token] / q[token])
        return t**2 * value

    check(SampledKL(samples=samples, exponent=exponent, temperature=t), formula)


@pytest.mark.parametrize("exponent", [1.0, 0.6])
def test_the_gradient_of_the_sampled_kl_is_that_of_forward_kl_in_the_mean_and_that_of_the_top_k_is_not(
    exponent: float,
) -> None:
    times = 40_000
    student, teacher = logits(1)[:1], logits(2)[:1]

    def gradients(loss: NextToken, rows: int) -> torch.Tensor:
        """(rows, vocab), each of one draw."""
        leaf = student.expand(rows, VOCAB).clone().requires_grad_()
        loss.between(leaf, teacher.expand(rows, VOCAB), moment(1)).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    (exact,) = gradients(KL(), 1)
    each = gradients(SampledKL(samples=4, exponent=exponent), times)
    error = each.std(dim=0) / math.sqrt(times)
    assert ((each.mean(dim=0) - exact).abs() < 4.5 * error + 1e-7).all()
    assert each.std(dim=0).max() > 0.1  # a single draw is far away
    assert error.max() < 0.01
    (naive,) = gradients(TopKKL(k=4, rest="renormalised"), 1)
    assert (naive - exact).abs().max() > 10 * error.max()


def test_the_divergence_of_jensen_and_shannon_ends_in_forward_and_reverse_kl_to_the_bit() -> None:
    for beta, same in ((0.0, KL(temperature=2.0)), (1.0, ReverseKL(temperature=2.0))):
        leaves = []
        for loss in (JSD(beta=beta, temperature=2.0), same):
            leaf = logits(1).requires_grad_()
            value = said(loss, leaf, logits(2))
            value.total.backward()
            leaves.append((value.total.detach(), leaf.grad))
        assert leaves[0][0] == leaves[1][0]
        assert torch.equal(leaves[0][1], leaves[1][1])  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", LOSSES, ids=label)
def test_logits_in_half_precision_are_compared_in_float32(loss: NextToken) -> None:
    student, teacher = logits(1, torch.bfloat16).requires_grad_(), logits(2, torch.bfloat16)
    value = said(loss, student, teacher)
    value.total.backward()
    wide = student.detach().float().requires_grad_()
    expected = said(loss, wide, teacher.float())
    expected.total.backward()
    assert value.total.dtype == torch.float32
    assert value.total == expected.total
    assert student.grad is not None and wide.grad is not None
    assert torch.equal(student.grad, wide.grad.bfloat16())


@pytest.mark.parametrize("loss", LOSSES, ids=label)
def test_an_impossible_token_is_finite_and_its_logit_is_pushed_down(loss: NextToken) -> None:
    teacher, student = logits(3), logits(4)
    teacher[:, 0] = -torch.inf
    student[:, 0] = 2.0
    student.requires_grad_()
    value = said(loss, student, teacher)
    value.total.backward()
    assert math.isfinite(value.total.item())
    assert student.grad is not None and student.grad.isfinite().all()
    # what is outside of the top k is one, or free; and a standardised logit moves the mean and the size of all
    if not isinstance(loss, TopKKL | StandardisedKL) or loss == TopKKL(k=VOCAB):
        assert (student.grad[:, 0] > 0).all()


def test_an_impossible_token_leaves_standardised_logits_of_the_others_as_they_are() -> None:
    teacher = logits(3)
    teacher[:, 0] = -torch.inf
    free = StandardisedKL().between(logits(3)[:, 1:], teacher[:, 1:], moment())
    torch.testing.assert_close(free, torch.zeros_like(free), rtol=0, atol=1e-6)
    same = StandardisedKL().between(teacher, teacher, moment())
    torch.testing.assert_close(same, torch.zeros_like(same), rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=label)
def test_the_power_of_the_temperature_keeps_the_gradient_level(loss: NextToken) -> None:
    if isinstance(loss, SampledKL):
        # the mean: noise shrinks with 1 / T and not with 1 / T^2
        loss = SampledKL(samples=200_000, exponent=loss.exponent)
    norms = []
    for temperature in (4.0, 16.0):
        student = logits(1).requires_grad_()
        said(with_temperature(loss, temperature), student, logits(2)).total.backward()
        assert student.grad is not None
        norms.append(float(student.grad.norm()))
    assert 0.5 < norms[0] / norms[1] < 2  # without the power it would be 4 and more


@pytest.mark.parametrize("loss", [SkewKL(alpha=0.2), SkewReverseKL(alpha=0.2)], ids=label)
def test_skewed_divergences_are_bounded(loss: NextToken) -> None:
    student, teacher = torch.full((2, len(BATCH.read), VOCAB), -200.0)
    student[:, 1], teacher[:, 2] = 200.0, 200.0
    value = said(loss, student, teacher)
    assert value.total.item() / value.count == pytest.approx(-math.log(0.2), rel=1e-5)


def test_more_of_the_top_brings_the_bucketed_kl_up_to_kl() -> None:
    whole = said(KL(), logits(1), logits(2)).total.item()
    values = [said(TopKKL(k=k), logits(1), logits(2)).total.item() for k in range(1, VOCAB + 1)]
    assert values == sorted(values)
    assert values[0] < whole
    assert values[-1] == whole


@pytest.mark.parametrize("loss", LOSSES, ids=label)
def test_what_says_the_same_is_at_no_distance(loss: NextToken) -> None:
    value = said(loss, logits(3), 5.0 + logits(3))
    assert value.total.item() / value.count == pytest.approx(0.0, abs=1e-5)


def test_standardised_logits_may_be_of_any_size() -> None:
    value = said(StandardisedKL(), 0.01 * logits(3) - 2.0, logits(3))
    assert value.total.item() / value.count == pytest.approx(0.0, abs=1e-5)
    flat = torch.zeros(len(BATCH.read), VOCAB, requires_grad=True)
    said(StandardisedKL(), flat, logits(3)).total.backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_cross_entropy_and_its_gradient_equal_the_formula(smoothing: float) -> None:
    gold = pack(QUESTIONS, "gold", "answer", 0, labelled=True)
    generator = torch.Generator().manual_seed(5)
    student = (3 * torch.randn(len(gold.read), VOCAB, generator=generator)).requires_grad_()
    value = CrossEntropy(label_smoothing=smoothing)(gold, ModelOutputs(logits=student), None)
    value.total.backward()
    targets = [7, 8, 9, 5]  # a: three tokens of the last choice; b: one of the first
    total = 0.0
    assert student.grad is not None
    for number, (row, target) in enumerate(zip(student.detach().double().tolist(), targets, strict=True)):
        q = softmax(row, 1.0)
        spread = sum(-math.log(each) for each in q) / VOCAB
        total += (1 - smoothing) * -math.log(q[target]) + smoothing * spread
        for token in range(VOCAB):
            wanted = (1 - smoothing) * (token == target) + smoothing / VOCAB
            assert float(student.grad[number, token]) == pytest.approx(q[token] - wanted, rel=1e-4, abs=1e-6)
    assert value.count == 4
    assert value.total.item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JSD(beta=1.1), r"beta=1.1: must be in \[0, 1\]"),
        (lambda: SkewKL(alpha=1.0), r"alpha=1.0: must be in \[0, 1\)"),
        (lambda: SkewReverseKL(alpha=-0.1), r"alpha=-0.1: must be in \[0, 1\)"),
        (lambda: TopKKL(k=0), "k=0: must be at least 1"),
        (lambda: TopKKL(k=1, rest="renormalised"), "k=1: must be at least 2 with rest=renormalised"),
        (lambda: SampledKL(samples=0), "samples=0: must be at least 1"),
        (lambda: SampledKL(exponent=0.0), "exponent=0.0: must be a finite number above 0"),
        (lambda: StandardisedKL(temperature=math.inf), "temperature=inf: must be a finite number above 0"),
        (lambda: CrossEntropy(label_smoothing=1.5), r"label_smoothing=1.5: must be in \[0, 1\]"),
    ],
)
def test_what_is_out_of_range_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_reverse_kl_seeks_one_mode_and_forward_kl_covers_both() -> None:
    """MiniLLM's picture: of all students that say one bump, which is the nearest to a teacher that says two?"""
    place, wide = torch.arange(41.0), 2 * 2.0**2
    teacher = torch.logaddexp(-((place - 10) ** 2) / wide, -((place - 30) ** 2) / wide)
    middles, widths = torch.meshgrid(torch.arange(41.0), torch.arange(1.0, 21.0), indexing="ij")
    middle, width = middles.flatten()[:, None], widths.flatten()[:, None]
    students = -((place - middle) ** 2) / (2 * width**2)
    found = {}
    for loss in (KL(), ReverseKL(), JSD(beta=0.9), SkewReverseKL()):
        best = int(loss.between(students, teacher.expand_as(students), moment()).argmin())
        q = torch.softmax(students[best], 0)
        found[label(loss)] = (middle[best].item(), width[best].item(), q[16:25].sum().item())
    at, spread, valley = found["KL"]
    assert at == 20 and spread > 10 and valley > 0.25  # what the teacher never says
    for seeking in ("ReverseKL", "JSD", "SkewReverseKL"):
        at, spread, valley = found[seeking]
        assert at in (10, 30) and spread == 2 and valley < 0.01, seeking
