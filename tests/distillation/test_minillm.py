"""MiniLLM's gradient against a float64 transcription, and against the reverse KL of all short texts."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.minillm import MiniLLM
from regraft.interfaces import EncodedQuestion, ModelOutputs
from regraft.tasks.packing import pack

VOCAB = 7
TEXTS = [
    EncodedQuestion(id="a", context=(1, 2, 3), choices=((4, 5, 2, 2),)),
    EncodedQuestion(id="b", context=(2,), choices=((6,),)),
    EncodedQuestion(id="c", context=(5, 1), choices=((3, 3),)),
]


def literal(loss: MiniLLM, student: torch.Tensor, teacher: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Sum over tokens and its gradient, by the formula: the reads of `TEXTS` are its tokens in their order."""
    gradient, total, read = torch.zeros_like(student, dtype=torch.float64), 0.0, 0
    for question in TEXTS:
        (text,) = question.choices
        q = [torch.softmax(student[read + t].double(), 0) for t in range(len(text))]
        p = [torch.softmax(teacher[read + t].double(), 0) for t in range(len(text))]
        rewards, weights = [], []
        for t, y in enumerate(text):
            reward = math.log(p[t][y]) - math.log(q[t][y])
            if loss.reward_clip is not None:
                reward = max(-loss.reward_clip, min(loss.reward_clip, reward))
            rewards.append(reward)
            weights.append(float(q[t][y] / (loss.alpha * p[t][y] + (1 - loss.alpha) * q[t][y])))
        for t, y in enumerate(text):
            later = range(t + 1 if loss.single_step else t, len(text))
            to_come = sum(loss.gamma ** (s - t) * rewards[s] for s in later)
            norm = sum(loss.gamma ** (s - t) for s in later)
            if loss.length_norm and norm > 0:
                to_come /= norm
            total += -weights[t] * to_come
            for v in range(VOCAB):
                of_log_q = (1.0 if v == y else 0.0) - float(q[t][v])
                gradient[read + t, v] += -weights[t] * to_come * of_log_q
            if loss.single_step:
                kl = sum(float(q[t][v] * (q[t][v] / p[t][v]).log()) for v in range(VOCAB))
                total += weights[t] * kl
                for v in range(VOCAB):
                    # d KL(q || p) / d z_v = q_v (log q_v - log p_v - KL)
                    gradient[read + t, v] += weights[t] * float(q[t][v] * ((q[t][v] / p[t][v]).log() - kl))
        read += len(text)
    return total, gradient


@pytest.mark.parametrize("single_step", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"alpha": 0.0, "length_norm": False},
        {"gamma": 0.6},
        {"gamma": 0.0, "alpha": 0.5},
        {"reward_clip": 0.5, "gamma": 0.9, "length_norm": False},
    ],
)
def test_value_and_gradient_equal_the_formula_in_float64(changes: dict, single_step: bool, monkeypatch) -> None:
    monkeypatch.setattr("regraft.models.likelihood.CHUNK", 3 * VOCAB)
    generator = torch.Generator().manual_seed(0)
    student, teacher = (2 * torch.randn(2, 7, VOCAB, generator=generator)).unbind()
    loss = MiniLLM(single_step=single_step, **changes)
    batch = pack(TEXTS, "choices", "answer", 0, labelled=False)
    with_graph = student.clone().requires_grad_()
    value = loss(batch, ModelOutputs(logits=with_graph), ModelOutputs(logits=teacher))
    value.total.backward()
    total, gradient = literal(loss, student, teacher)
    assert value.count == 7
    assert float(value.total.detach()) == pytest.approx(total, rel=1e-5)
    assert with_graph.grad is not None
    torch.testing.assert_close(with_graph.grad.double(), gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("single_step", [True, False])
def test_its_mean_over_all_short_texts_is_the_gradient_of_their_reverse_kl(single_step: bool) -> None:
    """Texts of two tokens out of three: nine, each as likely as the student holds it."""
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 4, 3, generator=generator).unbind()  # at the start, and after each first token
    exact = student.double().requires_grad_()
    log_q, log_p = torch.log_softmax(exact, 1), torch.log_softmax(teacher.double(), 1)
    pairs = list(itertools.product(range(3), range(3)))
    each = [(log_q[0, a] + log_q[1 + a, b], log_p[0, a] + log_p[1 + a, b]) for a, b in pairs]
    sum(q.exp() * (q - p) for q, p in each).backward()  # type: ignore[union-attr]
    loss = MiniLLM(alpha=0.0, length_norm=False, reward_clip=None, single_step=single_step)
    mean = torch.zeros(4, 3)
    for (a, b), (q, _) in zip(pairs, each, strict=True):
        batch = pack([EncodedQuestion(id="", context=(0,), choices=((a, b),))], "choices", "answer", 0, labelled=False)
        drawn = student.clone().requires_grad_()
        reads = [0, 1 + a]
        loss(batch, ModelOutputs(logits=drawn[reads]), ModelOutputs(logits=teacher[reads])).total.backward()
        assert drawn.grad is not None
        mean += float(q.detach().exp()) * drawn.grad
    torch.testing.assert_close(mean.double(), exact.grad, rtol=1e-4, atol=1e-6)


def test_where_student_and_teacher_agree_nothing_moves() -> None:
    logits = torch.randn(7, VOCAB, generator=torch.Generator().manual_seed(2))
    student = logits.clone().requires_grad_()
    batch = pack(TEXTS, "choices", "answer", 0, labelled=False)
    value = MiniLLM()(batch, ModelOutputs(logits=student), ModelOutputs(logits=logits))
    value.total.backward()
    assert float(value.total.detach()) == pytest.approx(0, abs=1e-5)
    assert student.grad is not None and float(student.grad.abs().max()) < 1e-6


def test_it_seeks_a_mode_where_forward_kl_covers_both() -> None:
    """Two texts are likely, and the student is one bell over the words between them."""
    place = torch.arange(21.0)
    teacher = torch.logsumexp(torch.stack([-0.5 * (place - mode) ** 2 for mode in (4, 15)]), 0)
    wrote = [EncodedQuestion(id=str(v), context=(0,), choices=((v,),)) for v in range(21)]
    batch = pack(wrote, "choices", "answer", 0, labelled=False)
    found = {}
    for name in ("minillm", "forward"):
        centre, width = torch.tensor(7.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
        optimizer = torch.optim.Adam([centre, width], lr=0.1)
        for _ in range(120):
            student = -0.5 * ((place - centre) / width.exp()) ** 2
            if name == "forward":
                value = -(torch.softmax(teacher, 0) * torch.log_softmax(student, 0)).sum()
            else:
                # each text as often as it is drawn: exactly the mean
                logits = student.expand(21, 21)
                share = torch.softmax(student.detach(), 0)
                loss = MiniLLM(alpha=0.0, length_norm=False, reward_clip=None)
                counted = share[:, None] * logits + (1 - share[:, None]) * logits.detach()
                value = loss(batch, ModelOutputs(logits=counted), ModelOutputs(logits=teacher.expand(21, 21))).total
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        found[name] = float(centre.detach()), float(width.detach().exp())
    assert abs(found["minillm"][0] - 4) < 0.5 and found["minillm"][1] < 1.5
    assert abs(found["forward"][0] - 9.5) < 2 and found["forward"][1] > 4


@pytest.mark.parametrize("wrong", [{"alpha": 1.0}, {"gamma": 1.1}, {"reward_clip": 0.0}])
def test_values_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MiniLLM(**wrong)
