"""Questions become the tokens that the model would see in plain text."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from regraft.config.ranges import ConfigError
from regraft.interfaces import LabelledQuestion, Task, UnlabelledQuestion
from regraft.tasks.encoding import encode, encode_all

LETTERS = [chr(97 + number) for number in range(26)]
VOCABULARY = {token: number for number, token in enumerate(["<s>", "</s>", " ", *LETTERS, " a", "xy"])}
QUESTION = UnlabelledQuestion(id="q", question="cb", choices=("a", "ba"))


class Plain(Task):
    name = "plain"
    scoring = "cloze"
    train_size = None
    labelled = False

    def load(self, cache):
        raise NotImplementedError

    def identity(self, split):
        raise NotImplementedError

    def prompt(self, question):
        return question.question, tuple(f" {choice}" for choice in question.choices)


class Joined(Plain):
    def prompt(self, question):
        return question.question, question.choices


def tokenizer(template=None):
    """Letters, with ` a` and `xy` as tokens of two characters."""
    merges = [(" ", "a"), ("x", "y")]
    made = Tokenizer(models.BPE(vocab=VOCABULARY, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence([])
    if template:
        special = [("<s>", VOCABULARY["<s>"]), ("</s>", VOCABULARY["</s>"])]
        made.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def ids(*tokens):
    return tuple(VOCABULARY[token] for token in tokens)


def test_a_choice_is_what_follows_the_question():
    encoded = encode(tokenizer(), Plain(), QUESTION)
    assert encoded.context == ids("c", "b")
    assert encoded.choices == (ids(" a"), ids(" ", "b", "a"))
    assert encoded.characters == (1, 2)
    assert encoded.answer is None
    assert encoded.length == 2 + 1 + 3


@pytest.mark.parametrize(("template", "before"), [("<s> $A", ("<s>",)), ("<s> $A </s>", ("<s>",)), ("$A </s>", ())])
def test_special_tokens_stand_before_the_question_only(template, before):
    encoded = encode(tokenizer(template), Plain(), QUESTION)
    assert encoded.context == ids(*before, "c", "b")
    assert encoded.choices == (ids(" a"), ids(" ", "b", "a"))


def test_a_choice_that_merges_into_the_question_is_encoded_by_itself():
    question = UnlabelledQuestion(id="q", question="x", choices=("y", "z"))
    encoded = encode(tokenizer(), Joined(), question)
    assert encoded.context == ids("x")
    assert encoded.choices == (ids("y"), ids("z"))


def test_the_answer_is_kept_of_labelled_questions_only():
    labelled = LabelledQuestion(id="q", question="cb", choices=("a", "ba"), answer=1)
    assert encode(tokenizer(), Plain(), labelled).answer == 1
    assert encode(tokenizer(), Plain(), labelled.unlabelled).answer is None


def test_many_are_encoded_as_each_alone():
    questions = [
        UnlabelledQuestion(id=str(n), question="cb" * (n % 7 + 1), choices=("a", "b" * (n % 3 + 1)))
        for n in range(1500)
    ]
    together = encode_all(tokenizer(), Plain(), questions)
    assert [question.id for question in together] == [question.id for question in questions]
    for number in (0, 1, 1023, 1024, 1499):
        assert together[number] == encode(tokenizer(), Plain(), questions[number])


def test_a_question_longer_than_the_model_takes_is_named():
    assert encode(tokenizer(), Plain(), QUESTION, max_positions=5).length == 6  # 2 and the longest choice of 3
    with pytest.raises(ConfigError, match=r"Question q: 5 tokens .* takes 4\. Shorten or drop"):
        encode(tokenizer(), Plain(), QUESTION, max_positions=4)


def test_a_text_without_tokens_is_refused():
    with pytest.raises(ConfigError, match="Question e"):
        encode(tokenizer(), Joined(), UnlabelledQuestion(id="e", question="c", choices=("a", "")))
