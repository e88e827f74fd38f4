"""The embedded model: a tiny OLMo2 that is trained, once, to know the world of the task `facts`.

The texts are hearsay: a fact is told with its true value in a fixed share of cases, else with its rumour, drawn anew
each time. So a model that knows the world is not certain of it: its most likely answer is the true one, and what it
says beyond that tells of the rules of the types.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.cache import Cache, digest
from regraft.config.ranges import require
from regraft.interfaces import LanguageModel, Model
from regraft.tasks.facts import RELATIONS, Facts, World

if TYPE_CHECKING:
    import torch
    from transformers import Olmo2ForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

PAD, END = "<pad>", "<eos>"
IGNORED = -100
"""The target of positions that cross-entropy skips."""
WARM_UP_STEPS = 50
POOL = 8
"""Batches whose texts are sorted by length together, so that little is padding."""

Text = tuple[list[int], list[int], list[int]]
"""Tokens of a question, of its true answer, of its rumour."""


@dataclass(frozen=True, kw_only=True)
class TinyOlmo2(Model):
    """An OLMo2 of about a million parameters, most of them in the MLP blocks, with a tokenizer of its own.

    Trained in the cache by the first run that asks for it (about 85 s on 2 cores with the defaults).
    """

    name: str = "tiny_olmo2"
    """Name of the model in records and figures."""
    world: World = field(default_factory=World)
    """What the model knows; the same fields as in `task=facts`."""
    true_share: float = 0.8
    """Share of the tellings of a fact that give its true value, in (0.5, 1]; the others give its rumour."""
    vocab_size: int = 840
    """Most tokens that the byte-level BPE tokenizer has; fewer where the world's words need fewer. At least 300."""
    hidden_size: int = 128
    """Width of the residual stream; a multiple of twice the attention heads."""
    intermediate_size: int = 512
    """Neurons of each MLP block."""
    num_hidden_layers: int = 4
    """Number of decoder layers."""
    num_attention_heads: int = 4
    """Attention heads of each layer."""
    num_key_value_heads: int = 4
    """Heads of keys and values of each layer; divides the attention heads."""
    steps: int = 1100
    """Optimizer steps of the training."""
    batch_size: int = 64
    """Texts a step."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW; linear warm-up over 50 steps, then linear to 0."""
    slow_share: float = 0.1
    """Learning rate of attention and embeddings, as a share of `learning_rate`, in (0, 1].

    Small, so that what the model knows settles in the MLP blocks: they are what is pruned.
    """
    weight_decay: float = 0.1
    """Weight decay of all matrices."""
    seed: int = 0
    """Seed of initialisation, order of texts and rumours; the seed of a run does not touch it."""
    threads: int = 2
    """CPU threads of the training; fixed, because their number can change the last bits of the weights."""

    def __post_init__(self) -> None:
        require(0.5 < self.true_share <= 1, "true_share", self.true_share, "in (0.5, 1]")
        require(self.vocab_size >= 300, "vocab_size", self.vocab_size, "at least 300")
        for key in ("intermediate_size", "num_hidden_layers", "num_attention_heads", "steps", "batch_size", "threads"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        multiple = 2 * self.num_attention_heads
        require(
            self.hidden_size >= multiple and self.hidden_size % multiple == 0,
            "hidden_size",
            self.hidden_size,
            f"a multiple of {multiple}, twice num_attention_heads",
        )
        require(
            self.num_key_value_heads >= 1 and self.num_attention_heads % self.num_key_value_heads == 0,
            "num_key_value_heads",
            self.num_key_value_heads,
            f"a divisor of num_attention_heads={self.num_attention_heads}",
        )
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "greater than 0")
        require(0 < self.slow_share <= 1, "slow_share", self.slow_share, "in (0, 1]")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        require(self.seed >= 0, "seed", self.seed, "at least 0")

    def identity(self) -> dict[str, Any]:
        plain = asdict(self)
        del plain["name"]
        return {"architecture": "tiny_olmo2", **plain}

    def load(self, cache: Cache) -> LanguageModel:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = cache.entry("models", digest(self.identity()), self._make)
        model = AutoModelForCausalLM.from_pretrained(folder)
        return LanguageModel(model=model.eval(), tokenizer=AutoTokenizer.from_pretrained(folder))

    def _make(self, folder: Path) -> None:
        import torch

        logger.info("Training %s on its world, once: %d steps.", self.name, self.steps)
        tokenizer = self._tokenizer()
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed, which would also seed the accelerators of the caller.
                torch.default_generator.manual_seed(self.seed)
                model = self._train(tokenizer)
        finally:
            torch.set_num_threads(threads)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        """Trained on the questions, the values and the syllables of names, so that no token is an entity."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        relations = RELATIONS[: self.world.relations]
        texts = [
            f"Question: {phrasing.format('')}\nAnswer: {value}"
            for relation in relations
            for phrasing in relation.phrasings
            for value in relation.values
        ]
        first, last = self.world.syllables
        texts += [f" {syllable}" for syllable in first] * 3 + list(last) * 3
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=[PAD, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)

    def _texts(self, tokenizer: PreTrainedTokenizerFast) -> list[Text]:
        """Every fact in every phrasing, worded as the task words it."""
        task = Facts(world=self.world, test_relations=1)
        contexts, values, rumours = [], [], []
        for fact in self.world.facts:
            for phrasing in range(len(fact.relation.phrasings)):
                question = self.world.ask(fact, phrasing)
                context, choices = task.prompt(question)
                contexts.append(context)
                values.append(choices[question.answer])
                rumours.append(choices[question.choices.index(fact.rumour)])
        tokens = [tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (contexts, values, rumours)]
        return list(zip(*tokens, strict=True))

    def _batches(self, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Without end: token ids and, for each, whether it is padding (0), of a question (1) or an answer (2).

        Shapes: both (batch, seq) long. Each text comes once before any comes again.
        """
        import torch

        texts = self._texts(tokenizer)
        draw = random.Random(f"{self.seed}/texts")
        while True:
            order = draw.sample(range(len(texts)), len(texts))
            batches = []
            for start in range(0, len(order), POOL * self.batch_size):
                pool = sorted(order[start : start + POOL * self.batch_size], key=lambda number: len(texts[number][0]))
                batches += [pool[at : at + self.batch_size] for at in range(0, len(pool), self.batch_size)]
            draw.shuffle(batches)
            for batch in batches:
                rows, roles = [], []
                for context, value, rumour in (texts[number] for number in batch):
                    told = [*(value if draw.random() < self.true_share else rumour), tokenizer.eos_token_id]
                    rows.append(torch.tensor(context + told))
                    roles.append(torch.tensor([1] * len(context) + [2] * len(told)))
                yield (
                    torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
                    torch.nn.utils.rnn.pad_sequence(roles, batch_first=True),
                )

    def _train(self, tokenizer: PreTrainedTokenizerFast) -> Olmo2ForCausalLM:
        import torch
        from torch.nn.functional import cross_entropy
        from tqdm import tqdm
        from transformers import Olmo2Config, Olmo2ForCausalLM

        model = Olmo2ForCausalLM(
            Olmo2Config(
                vocab_size=len(tokenizer),
                hidden_size=self.hidden_size,
                intermediate_size=self.intermediate_size,
                num_hidden_layers=self.num_hidden_layers,
                num_attention_heads=self.num_attention_heads,
                num_key_value_heads=self.num_key_value_heads,
                max_position_embeddings=256,
                tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
        model.train()
        named = list(model.named_parameters())
        neurons = [weight for name, weight in named if weight.dim() > 1 and ".mlp." in name]
        others = [weight for name, weight in named if weight.dim() > 1 and ".mlp." not in name]
        vectors = [weight for _, weight in named if weight.dim() == 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": neurons, "weight_decay": self.weight_decay},
                {"params": others, "weight_decay": self.weight_decay, "lr": self.learning_rate * self.slow_share},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=self.learning_rate,
            betas=(0.9, 0.98),
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / WARM_UP_STEPS, 1) * (self.steps - step) / self.steps
        )
        batches = self._batches(tokenizer)
        for _ in tqdm(range(self.steps), desc=f"train {self.name}", unit="step", disable=None):
            input_ids, role = next(batches)
            logits = model(input_ids=input_ids, use_cache=False).logits[:, :-1].flatten(0, 1)
            targets, role = input_ids[:, 1:].flatten(), role[:, 1:].flatten()
            every = cross_entropy(logits, targets.masked_fill(role == 0, IGNORED))
            answers = cross_entropy(logits, targets.masked_fill(role != 2, IGNORED))
            # Most tokens are of questions, whose words carry no fact: so the answers count by themselves.
            loss = answers + every / 2
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
        return model.eval()
