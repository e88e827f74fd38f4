from __future__ import annotations

import logging
import math
import random
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

from regraft.cache import Cache, default_root
from regraft.config.components import Allowed, build
from regraft.config.ranges import ConfigError
from regraft.interfaces import LabelledQuestion, LanguageModel
from regraft.models.tiny_olmo2 import TinyOlmo2
from regraft.tasks.facts import RELATIONS, Facts, World

ROOT = Path(__file__).parents[2]
SMALL = World(entities=6, types=2, relations=3)
QUICK = TinyOlmo2(
    world=SMALL,
    vocab_size=400,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    steps=3,
    batch_size=8,
    threads=1,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def quick(shared: Cache) -> LanguageModel:
    return QUICK.load(shared)


def weights(language_model: LanguageModel) -> dict[str, torch.Tensor]:
    return language_model.model.state_dict()


@torch.no_grad()
def choice_log_likelihoods(
    language_model: LanguageModel, task: Facts, questions: tuple[LabelledQuestion, ...]
) -> torch.Tensor:
    """(questions, choices), each choice scored in a sequence of its own."""
    tokenizer, rows, starts = language_model.tokenizer, [], []
    for question in questions:
        context, choices = task.prompt(question)
        for choice in choices:
            rows.append(torch.tensor(tokenizer(context + choice)["input_ids"]))
            starts.append(len(tokenizer(context)["input_ids"]))
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    scores = []
    for at in range(0, len(rows), 500):
        log_probabilities = log_softmax(language_model.model(padded[at : at + 500]).logits, dim=-1)
        for row, start, said in zip(rows[at : at + 500], starts[at : at + 500], log_probabilities, strict=True):
            scores.append(sum(said[place - 1, row[place]] for place in range(start, len(row))))
    return torch.stack(scores).view(len(questions), -1)


def test_the_saved_folder_is_a_plain_checkpoint(shared: Cache, quick: LanguageModel) -> None:
    (folder,) = (path for path in (shared.root / "models").iterdir() if path.is_dir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("Question: What colour is Ru?\nAnswer: red", return_tensors="pt")["input_ids"]
    assert torch.equal(
        ids, quick.tokenizer("Question: What colour is Ru?\nAnswer: red", return_tensors="pt")["input_ids"]
    )
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, quick.model(ids).logits)
    assert not quick.model.training
    assert quick.removed == {}


def test_it_trains_once(shared: Cache, quick: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: TinyOlmo2, *arguments: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(TinyOlmo2, "_train", fail)
    again = QUICK.load(shared)
    assert all(torch.equal(weight, weights(again)[name]) for name, weight in weights(quick).items())


def test_training_is_reproducible_and_moves_with_its_seed(cache: Cache, quick: LanguageModel) -> None:
    torch.manual_seed(5)
    again = QUICK.load(cache)
    assert all(torch.equal(weight, weights(again)[name]) for name, weight in weights(quick).items())
    other = replace(QUICK, seed=1).load(cache)
    assert not torch.equal(weights(other)["lm_head.weight"], weights(quick)["lm_head.weight"])


def test_the_callers_random_numbers_and_threads_stay(cache: Cache) -> None:
    torch.manual_seed(3)
    random.seed(3)
    expected, expected_python = torch.rand(4), random.random()
    torch.manual_seed(3)
    random.seed(3)
    threads = torch.get_num_threads()
    replace(QUICK, threads=threads + 1, steps=1).load(cache)
    assert torch.equal(torch.rand(4), expected)
    assert random.random() == expected_python
    assert torch.get_num_threads() == threads


def test_nothing_is_left_of_a_training_that_failed(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: TinyOlmo2, *arguments: object) -> None:
        raise RuntimeError("interrupted")

    monkeypatch.setattr(TinyOlmo2, "_train", fail)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="interrupted"):
        QUICK.load(cache)
    assert [path for path in (cache.root / "models").iterdir() if path.is_dir()] == []
    assert torch.get_num_threads() == threads


def test_it_says_that_it_trains(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="regraft.models.tiny_olmo2"):
        replace(QUICK, steps=1).load(cache)
    assert "once: 1 steps" in caplog.text


def test_training_learns(quick: LanguageModel, cache: Cache) -> None:
    task = Facts(world=SMALL, test_relations=1)
    questions = tuple(SMALL.ask(fact, 0) for fact in SMALL.facts)
    answers = torch.tensor([question.answer for question in questions])
    longer = replace(QUICK, steps=150, learning_rate=5e-3, slow_share=1.0, true_share=1.0).load(cache)
    before = choice_log_likelihoods(quick, task, questions).argmax(-1) == answers
    after = choice_log_likelihoods(longer, task, questions).argmax(-1) == answers
    assert after.float().mean() >= 0.7 > before.float().mean()


def test_the_texts_are_worded_as_the_task_asks(quick: LanguageModel) -> None:
    task = Facts(world=SMALL, test_relations=1)
    known = {(tuple(context), tuple(value), tuple(rumour)) for context, value, rumour in QUICK._texts(quick.tokenizer)}
    assert len(known) == 6 * 3 * 3
    for fact in SMALL.facts:
        for phrasing in range(3):
            context, choices = task.prompt(question := SMALL.ask(fact, phrasing))
            texts = (context, choices[question.answer], f" {fact.rumour}")
            assert tuple(tuple(quick.tokenizer(text)["input_ids"]) for text in texts) in known


def test_the_true_share_is_told(quick: LanguageModel) -> None:
    model = replace(QUICK, true_share=0.8, batch_size=18)
    values = {(*context, *value, quick.tokenizer.eos_token_id) for context, value, _ in model._texts(quick.tokenizer)}
    told = [
        tuple(row[role > 0].tolist())
        for ids, roles in islice(model._batches(quick.tokenizer), 300)
        for row, role in zip(ids, roles, strict=True)
    ]
    share = sum(text in values for text in told) / len(told)
    assert abs(share - 0.8) < 4 * math.sqrt(0.8 * 0.2 / len(told))


def test_the_tokenizer_is_lossless_and_adds_nothing(quick: LanguageModel) -> None:
    tokenizer = quick.tokenizer
    text = "Question: Où vit Zorvik?\nAnswer: forêt"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.pad_token_id, tokenizer.eos_token_id} & set(ids)
    assert tokenizer.bos_token_id is None


def test_no_value_begins_another_as_tokens() -> None:
    tokenizer = TinyOlmo2()._tokenizer()
    for relation in RELATIONS:
        tokens = sorted(tuple(tokenizer(f" {value}")["input_ids"]) for value in relation.values)
        assert not any(after[: len(one)] == one for one, after in zip(tokens, tokens[1:], strict=False))


def test_no_token_is_an_entity() -> None:
    tokenizer = TinyOlmo2()._tokenizer()
    assert all(len(tokenizer(f" {name}")["input_ids"]) >= 2 for name in World().names)


def test_the_default_has_about_a_million_parameters_most_of_them_in_the_mlp_blocks() -> None:
    model = replace(TinyOlmo2(), steps=1, batch_size=1)._train(TinyOlmo2()._tokenizer())
    total = model.num_parameters()
    in_mlp = sum(weight.numel() for name, weight in model.named_parameters() if ".mlp." in name)
    assert 0.8e6 <= total <= 1.3e6
    assert in_mlp > total / 2


def test_the_yaml_spells_out_the_defaults() -> None:
    plain = yaml.safe_load((ROOT / "conf/model/tiny_olmo2.yaml").read_text())
    assert build(plain, "model", Allowed()) == TinyOlmo2()
    assert set(plain) == {"_target_", *TinyOlmo2.__dataclass_fields__}


def test_the_default_knows_the_world_of_the_default_task() -> None:
    assert TinyOlmo2().world == Facts().world


def test_identity_ignores_the_name_alone() -> None:
    model = TinyOlmo2()
    assert replace(model, name="other").identity() == model.identity()
    assert replace(model, world=World(seed=1)).identity() != model.identity()
    assert replace(model, steps=5).identity() != model.identity()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("true_share", 0.5),
        ("vocab_size", 100),
        ("hidden_size", 100),
        ("num_key_value_heads", 3),
        ("steps", 0),
        ("learning_rate", 0.0),
        ("seed", -1),
    ],
)
def test_bad_fields_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{key}={value}: must be"):
        TinyOlmo2(**{key: value})


@pytest.mark.slow
def test_the_default_is_informative() -> None:
    cache = Cache(default_root())
    language_model = TinyOlmo2().load(cache)
    task = Facts()
    splits = task.load(cache)
    scores = choice_log_likelihoods(language_model, task, splits.test)
    answers = torch.tensor([question.answer for question in splits.test])
    assert (scores.argmax(-1) == answers).float().mean() >= 0.97
    beliefs = log_softmax(choice_log_likelihoods(language_model, task, splits.recovery), dim=-1)
    assert -(beliefs.exp() * beliefs).sum(-1).mean() >= 0.2
