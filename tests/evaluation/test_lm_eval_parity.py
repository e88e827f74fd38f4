"""Log-likelihoods of the study's prepared model on CommonsenseQA are those of lm-evaluation-harness."""

from dataclasses import replace

import numpy
import pytest
import torch
from hydra import compose, initialize_config_dir

from regraft.__main__ import conf
from regraft.cache import Cache
from regraft.evaluation.likelihood import score_questions
from regraft.recovery.processes import Processes
from regraft.stages import prepare
from regraft.stages.context import Context
from regraft.stages.plan import plan
from regraft.sweeps.identity import register, typed
from regraft.tasks.encoding import encode_all
from regraft.tracking.none import Silent

QUESTIONS = 100

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the harness and what it imports do warn


@pytest.fixture(scope="module")
def prepared():
    """The study's config and its dense model, fine-tuned on CommonsenseQA (minutes, once a cache)."""
    register()
    with initialize_config_dir(str(conf()), version_base="1.3"):
        composed = compose("config", ["experiment=l2pft_vs_l2psd"], return_hydra_config=True)
    config = typed(composed, composed.hydra)
    cpu = torch.device("cpu")
    context = Context(config=config, cache=Cache(), device=cpu, log=Silent(), processes=Processes(cpu))
    return config, prepare.dense(plan(config)[0], context).read()


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
def test_every_choice_scores_as_in_lm_evaluation_harness(harness, prepared, scoring, record_property):
    config, language_model = prepared
    task = replace(config.task, scoring=scoring)
    questions = task.load(Cache()).test[:QUESTIONS]
    prompts = [task.prompt(question) for question in questions]
    expected = harness(language_model, [(context, choice) for context, choices in prompts for choice in choices])

    encoded = encode_all(language_model.tokenizer, task, questions, max_positions=None)
    scores = score_questions(language_model.model, encoded, batch_size=16, pad_token_id=0)
    assert scores.shape == (QUESTIONS, 5)
    difference = float(numpy.abs(scores.ravel() - expected).max())
    record_property("largest_difference", difference)
    assert difference < 1e-4
