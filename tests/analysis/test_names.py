from __future__ import annotations

from pathlib import Path

import pytest

from analysis import names
from regraft.__main__ import conf


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none", "none"),
        ("ce", "CE"),
        ("kl", "KL"),
        ("ce_kl", "CE + KL"),
        ("ce_to_kl", "CE to KL"),
        ("kl_hints", "KL + hints"),
        ("pseudo_label", "pseudo-label CE"),
        ("reverse_kl", "reverse KL"),
        ("top_k_kl", "top-k KL"),
        ("jsd", "JSD"),
        ("total_variation", "total variation"),
        ("rkd", "RKD"),
        ("lm", "LM"),
        ("minillm", "MiniLLM"),
        ("distilbert", "DistilBERT"),
        ("Mine + YOURS", "Mine + YOURS"),
    ],
)
def test_a_loss_is_called_what_its_file_is_called(name: str, told: str) -> None:
    assert names.value("loss", name) == told


def test_no_two_losses_have_one_name() -> None:
    losses = [path.stem for path in (Path(conf()) / "loss").glob("*.yaml")]
    assert len(losses) >= 5
    assert len({names.value("loss", loss) for loss in losses}) == len(losses)
    assert sorted(losses, key=lambda loss: names.rank("loss", loss))[:3] == ["none", "ce", "kl"]
