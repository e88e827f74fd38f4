"""Log-likelihoods of SmolLM2-135M on CommonsenseQA are those of lm-evaluation-harness."""

from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import yaml

from regraft.cache import Cache
from regraft.config.components import Allowed, build
from regraft.evaluation.likelihood import score_questions
from regraft.tasks.encoding import encode_all

CONF = Path(__file__).parents[2] / "conf"
QUESTIONS = 100

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the harness and what it imports do warn


def component(group, choice):
    return build(yaml.safe_load((CONF / group / f"{choice}.yaml").read_text(encoding="utf-8")), group, Allowed())


@pytest.fixture(scope="module")
def harness():
    pytest.importorskip("lm_eval", reason="needs the extra lm-eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    def log_likelihoods(language_model, pairs):
        judge = HFLM(pretrained=language_model.model, tokenizer=language_model.tokenizer, batch_size=8, device="cpu")
        requests = [
            Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=number)
            for number, pair in enumerate(pairs)
        ]
        return [score for score, _ in judge.loglikelihood(requests, disable_tqdm=True)]

    return log_likelihoods


@pytest.mark.parametrize("scoring", ["cloze", "letter"])
def test_every_choice_scores_as_in_lm_evaluation_harness(harness, scoring, record_property):
    cache = Cache()
    language_model = component("model", "smollm2_135m").load(cache)
    language_model.model.float()
    task = replace(component("task", "commonsense_qa"), scoring=scoring)
    questions = task.load(cache).test[:QUESTIONS]
    prompts = [task.prompt(question) for question in questions]
    expected = harness(language_model, [(context, choice) for context, choices in prompts for choice in choices])

    encoded = encode_all(language_model.tokenizer, task, questions, max_positions=None)
    scores = score_questions(language_model.model, encoded, batch_size=16, pad_token_id=0)
    assert scores.shape == (QUESTIONS, 5)
    difference = float(numpy.abs(scores.ravel() - expected).max())
    record_property("largest_difference", difference)
    assert difference < 1e-4
