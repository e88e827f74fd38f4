"""Exits against a literal float64 transcription, on a model with a head."""

from __future__ import annotations

import pytest
import torch
from architectures import VOCABULARY, tiny_model
from layers import batch

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.exits import Exits
from regraft.models.forward import forward


def test_value_and_gradient_equal_the_formula_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.models.likelihood.CHUNK", 3 * VOCABULARY)  # several chunks
    packed, temperature = batch(), 2.0
    model = tiny_model("llama", layers=3)
    value = Exits(layers=(1, 2), temperature=temperature)(packed, forward(model, packed, {"hidden_states"}), None)
    assert value.count == len(packed.read)
    (value.total / value.count).backward()

    exact = tiny_model("llama", layers=3).double()
    said = forward(exact, packed, {"hidden_states"})
    weight, norm = exact.lm_head.weight, exact.model.norm.weight
    final = (said.hidden_states[3] @ weight.T).detach()
    each = []
    for layer in (1, 2):
        for position, state in enumerate(said.hidden_states[layer]):
            root = (sum(channel**2 for channel in state) / len(state) + exact.config.rms_norm_eps).sqrt()
            logits = weight @ (norm * state / root)
            log_q = logits / temperature - torch.logsumexp(logits / temperature, 0)
            log_p = final[position] / temperature - torch.logsumexp(final[position] / temperature, 0)
            each.append(sum(log_p[token].exp() * (log_p[token] - log_q[token]) for token in range(VOCABULARY)))
    expected = temperature**2 * sum(each) / len(each)
    expected.backward()
    assert value.total.item() / value.count == pytest.approx(expected.item(), rel=1e-5)
    for (name, one), other in zip(model.named_parameters(), exact.parameters(), strict=True):
        # the last layer teaches: nothing flows into it
        assert (one.grad is None) == (other.grad is None) == ("layers.2" in name), name
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "expected"), [(2, [1]), (3, [1, 2]), (4, [1, 2, 3]), (12, [3, 6, 9]), (30, [8, 15, 23])]
)
def test_exits_lie_at_quarters(layers: int, expected: list[int]) -> None:
    assert Exits().exits(layers) == expected


def test_an_exit_must_lie_before_the_last_layer() -> None:
    with pytest.raises(ConfigError, match=r"before the last of the model's 3 layers"):
        Exits(layers=(1, 3)).exits(3)
    with pytest.raises(ConfigError, match=r"before the last of the model's 1 layers"):
        Exits().exits(1)
    with pytest.raises(ConfigError, match="numbers of layers of at least 1"):
        Exits(layers=(0,))
