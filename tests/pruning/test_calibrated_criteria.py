"""Scores of units by calibration questions, against the formulas in float64, one token, question and unit at a time.

The literal readings never pack or pad: each question runs through the model alone, once for each of its choices.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable

import pytest
import questions
import torch
from architectures import HIDDEN, LAYERS, tiny_model
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from standins import Heads, Hidden, Layers, Weights
from torch import nn

from regraft.__main__ import conf
from regraft.config.components import Allowed, build
from regraft.config.ranges import ConfigError
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.sharpened_kl import SharpenedKL
from regraft.interfaces import Criterion, EncodedQuestion, LanguageModel, PruningContext, Structure
from regraft.models.architecture import attention_blocks, mlp_blocks
from regraft.pruning.criteria.activation import Activation
from regraft.pruning.criteria.alternate import Alternate
from regraft.pruning.criteria.angular_distance import AngularDistance
from regraft.pruning.criteria.block_influence import BlockInfluence
from regraft.pruning.criteria.flap import FLAP
from regraft.pruning.criteria.gates import Gates
from regraft.pruning.criteria.kl_taylor import KLTaylor
from regraft.pruning.criteria.max_abs import MaxAbs
from regraft.pruning.criteria.sleb import SLEB
from regraft.pruning.criteria.taylor import Taylor
from regraft.pruning.criteria.wanda import Wanda
from regraft.pruning.structures import hidden as residual
from regraft.pruning.structures.mlp_neurons import MlpNeurons
from regraft.sweeps.identity import register, typed

GOLD = CrossEntropy()
CHOICES = CrossEntropy(reads="choices")
SDM = KLTaylor(hard=CHOICES, soft=SharpenedKL(temperature=0.3), alpha=0.4, first=0.05)
BATCH = 4
"""Of six questions: batches are of unlike size and padded."""


def language_model(architecture: str = "llama", **overrides: object) -> LanguageModel:
    model = tiny_model(architecture, **overrides).double()  # type: ignore[operator]
    return LanguageModel(model=model, tokenizer=None)  # type: ignore[arg-type]


def context(
    asked: list[EncodedQuestion] | None = None,
    dense: LanguageModel | None = None,
    batch: int = BATCH,
    **settings: float,
) -> PruningContext:
    data = questions.Made(asked, batch_size=batch, dense=dense)
    return PruningContext(generator=torch.Generator(), data=data, **settings)  # type: ignore[arg-type]


def batches(size: int = BATCH) -> list[list[EncodedQuestion]]:
    asked = questions.made()
    return [asked[start : start + size] for start in range(0, len(asked), size)]


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits - logits.exp().sum().log()


def same(found: torch.Tensor, expected: Iterable[float], tolerance: float = 1e-5) -> None:
    wanted = torch.tensor(list(expected), dtype=torch.float64)
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance * scale)


def gold_nll(model: nn.Module, question: EncodedQuestion) -> list[torch.Tensor]:
    """Of each token of the right choice."""
    assert question.answer is not None
    gold = question.choices[question.answer]
    logits = model(input_ids=torch.tensor([[*question.context, *gold]])).logits[0]
    first = len(question.context) - 1
    return [-log_softmax(logits[first + at])[token] for at, token in enumerate(gold)]


def mean_gold_nll(model: nn.Module, asked: list[EncodedQuestion]) -> torch.Tensor:
    tokens = [nll for question in asked for nll in gold_nll(model, question)]
    return sum(tokens, torch.zeros(())) / len(tokens)


def matrices(model: nn.Module, layer: int, structure: Structure) -> dict[str, nn.Parameter]:
    """The weights of a layer that units of the structure own, by the names of transformers' modules."""
    prefix = f"model.layers.{layer}.{'mlp' if structure.kind == 'neurons' else 'self_attn'}."
    return {
        name.removeprefix(prefix).removesuffix(".weight"): parameter
        for name, parameter in model.named_parameters()
        if name.startswith(prefix) and parameter.ndim == 2
    }


def owned_by(tensors: dict[str, torch.Tensor], unit: int) -> dict[str, list[float]]:
    """What a neuron, or a group of two query heads of 8 channels, owns of each matrix: plain floats."""
    widths = {"q_proj": 16, "k_proj": 8, "v_proj": 8, "o_proj": 16}
    owned = {}
    for name, tensor in tensors.items():
        width = widths.get(name, 1)
        rows = tensor.T if name in ("down_proj", "o_proj") else tensor
        owned[name] = rows[unit * width : (unit + 1) * width].flatten().tolist()
    return owned


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("grouping", ["vector", "element"])
@pytest.mark.parametrize(("architecture", "structure"), [("llama", MlpNeurons()), ("olmo2", Heads())])
def test_taylor(architecture: str, structure: Structure, grouping: str, order: int) -> None:
    model = language_model(architecture)
    criterion = Taylor(loss=GOLD, grouping=grouping, order=order)  # type: ignore[arg-type]
    scores = criterion.scores(model, structure, context())
    layer = 1
    weights = matrices(model.model, layer, structure)

    def gradients(asked: list[EncodedQuestion]) -> dict[str, torch.Tensor]:
        found = torch.autograd.grad(mean_gold_nll(model.model, asked), list(weights.values()))
        return dict(zip(weights, found, strict=True))

    slopes, parts = gradients(questions.made()), [gradients(batch) for batch in batches()]
    expected = []
    for unit in range(len(scores[layer])):
        w, g = owned_by(weights, unit), owned_by(slopes, unit)  # type: ignore[arg-type]
        h = [owned_by(part, unit) for part in parts]
        changes = []
        for name in w:
            for at, weight in enumerate(w[name]):
                curvature = sum(part[name][at] ** 2 for part in h) / len(h) if order == 2 else 0.0
                changes.append(g[name][at] * weight - 0.5 * curvature * weight**2)
        expected.append(abs(math.fsum(changes)) if grouping == "vector" else math.fsum(map(abs, changes)))
    assert len(scores) == LAYERS
    same(scores[layer], expected)


def test_taylor_of_single_weights_and_of_channels() -> None:
    model = language_model()
    weights = Taylor(loss=GOLD).scores(model, Weights(), context())
    hidden = Taylor(loss=GOLD).scores(model, Hidden(), context())
    (gradient,) = torch.autograd.grad(
        mean_gold_nll(model.model, questions.made()),
        mlp_blocks(model.model)[2].down.module.weight,  # type: ignore[arg-type]
    )
    down = mlp_blocks(model.model)[2].down.weight.detach()
    products = zip(gradient.flatten().tolist(), down.flatten().tolist(), strict=True)
    same(weights[2], [abs(g * w) for g, w in products])
    readers = [part.parameter for part in Hidden().groups(model.model)[0].parts]
    gradients = torch.autograd.grad(mean_gold_nll(model.model, questions.made()), readers)
    expected = [
        math.fsum(
            abs(g * w)
            for each, read in zip(gradients, readers, strict=True)
            for g, w in zip(each[:, channel].tolist(), read[:, channel].tolist(), strict=True)
        )
        for channel in range(HIDDEN)
    ]
    same(hidden[0], expected)


def sdm_loss(
    model: nn.Module, dense: nn.Module, asked: list[EncodedQuestion], alpha: float, temperature: float
) -> torch.Tensor:
    """(1 - alpha) CE + alpha KL of a batch: CE of the right choices' tokens, KL of each position that is read, once."""
    nll, divergences = [], []
    for question in asked:
        first = len(question.context) - 1
        nll += gold_nll(model, question)
        for number, choice in enumerate(question.choices):
            ids = torch.tensor([[*question.context, *choice]])
            mine, its = model(input_ids=ids).logits[0], dense(input_ids=ids).logits[0].detach()
            # what all choices share is read once
            for at in range(first if number == 0 else first + 1, first + len(choice)):
                p = (its[at] / temperature).softmax(dim=0)
                divergences.append((p * (p.log() - log_softmax(mine[at]))).sum())
    return (1 - alpha) * sum(nll) / len(nll) + alpha * sum(divergences) / len(divergences)  # type: ignore[return-value]


def importance(
    model: nn.Module,
    structure: Structure,
    layer: int,
    loss: Callable[[list[EncodedQuestion]], torch.Tensor],
    units: int,
) -> list[float]:
    """Mean over batches of the sum of |the sum over matrices of one shape of g w|."""
    weights = matrices(model, layer, structure)
    scores = [0.0] * units
    for batch in batches():
        found = torch.autograd.grad(loss(batch), list(weights.values()))
        slopes = dict(zip(weights, found, strict=True))
        for unit in range(units):
            w, g = owned_by(weights, unit), owned_by(slopes, unit)  # type: ignore[arg-type]
            for size in {len(numbers) for numbers in w.values()}:
                alike = [name for name in w if len(w[name]) == size]
                scores[unit] += math.fsum(
                    abs(math.fsum(g[name][at] * w[name][at] for name in alike)) for at in range(size)
                ) / len(batches())
    return scores


@pytest.mark.parametrize("structure", [MlpNeurons(), Heads()], ids=["neurons", "heads"])
def test_kl_taylor(structure: Structure) -> None:
    model = language_model()
    dense, silent = copy.deepcopy(model.model), copy.deepcopy(model.model)
    units = structure.units(model.model)
    early = [
        importance(model.model, structure, layer, lambda batch: mean_gold_nll(model.model, batch), units[layer])
        for layer in range(LAYERS)
    ]
    number = 2 if structure.kind == "neurons" else 1  # a twentieth of 48 is 2.4
    gone = [sorted(range(len(layer)), key=lambda unit, each=layer: each[unit])[:number] for layer in early]  # type: ignore[misc]
    with torch.no_grad():
        for layer, lost in enumerate(gone):
            weights = matrices(silent, layer, structure)
            width = 1 if structure.kind == "neurons" else 16
            for unit in lost:
                weights["down_proj" if width == 1 else "o_proj"][:, unit * width : (unit + 1) * width] = 0
    scores = SDM.scores(model, structure, context(dense=LanguageModel(model=dense, tokenizer=None)))  # type: ignore[arg-type]
    for layer, lost in enumerate(gone):
        expected = importance(
            silent, structure, layer, lambda batch: sdm_loss(silent, dense, batch, 0.4, 0.3), units[layer]
        )
        stays = [unit for unit in range(units[layer]) if unit not in lost]
        same(scores[layer][stays], [expected[unit] for unit in stays])
        order = scores[layer].argsort().tolist()
        assert order[:number] == lost, "those that are taken out first score lowest, in their order"


def test_the_dense_model_has_no_kl_to_itself_without_the_first_units() -> None:
    model = language_model()
    given = context(dense=model)
    blind = KLTaylor(hard=CHOICES, soft=SharpenedKL(temperature=1.0), alpha=1.0, first=0.0)
    with pytest.raises(ValueError, match=r"KLTaylor: the gradient of the loss is zero everywhere.*first above 0"):
        blind.scores(model, MlpNeurons(), given)
    with pytest.raises(ValueError, match=r"Taylor: the gradient of the loss is zero"):
        Taylor(loss=KL()).scores(model, MlpNeurons(), given)
    dense = copy.deepcopy(model)
    for first in (0.025, 0.5):
        seeing = KLTaylor(hard=CHOICES, soft=SharpenedKL(temperature=1.0), alpha=1.0, first=first)
        for score in seeing.scores(model, MlpNeurons(), context(dense=dense)):
            assert len(score.unique()) == len(score) and float(score.median()) > 0
    # a sharpened teacher differs from the model that it is
    sharp = KLTaylor(hard=CHOICES, soft=SharpenedKL(temperature=0.5), alpha=1.0, first=0.0)
    assert all(bool((score > 0).all()) for score in sharp.scores(model, MlpNeurons(), given))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.5}, r"alpha=1.5: must be in \[0, 1\]"),
        ({"first": 0.6}, r"first=0.6: must be in \[0, 0.5\]"),
        ({"hard": GOLD}, r"hard.reads=gold: must be soft.reads=choices"),
        ({"soft": SharpenedKL(positions="all")}, r"hard.positions=answer: must be soft.positions=all"),
    ],
)
def test_kl_taylor_says_what_is_wrong(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KLTaylor(**({"hard": CHOICES, "soft": SharpenedKL()} | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("structure", [MlpNeurons(), Heads()], ids=["neurons", "heads"])
def test_gates_by_turning_them(structure: Structure) -> None:
    model = language_model()
    turned = Gates(loss=GOLD, normalise=False).scores(model, structure, context())
    normed = Gates(loss=GOLD).scores(model, structure, context())
    layer, by = 1, 3e-3
    width, units = (1, [0, 5, 47]) if structure.kind == "neurons" else (16, [0, 1])
    (part,) = structure.groups(model.model)[layer].readers

    def loss(question: EncodedQuestion, unit: int, gate: float) -> float:
        def turn(module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            factors = torch.ones(inputs[0].shape[-1], dtype=torch.float64)
            factors[unit * width : (unit + 1) * width] = gate
            return (inputs[0] * factors,)

        handle = part.module.register_forward_pre_hook(turn)
        with torch.no_grad():
            nll = float(sum(gold_nll(model.model, question)))
        handle.remove()
        return nll

    expected = []
    for unit in units:
        slopes = [
            abs(loss(question, unit, 1 + by) - loss(question, unit, 1 - by)) / (2 * by) for question in questions.made()
        ]
        expected.append(math.fsum(slopes) / len(slopes))
    same(turned[layer][units], expected, 1e-3)
    for score, raw in zip(normed, turned, strict=True):
        same(score, [value / math.sqrt(math.fsum(other**2 for other in raw.tolist())) for value in raw.tolist()])


def fed(model: LanguageModel, *modules: nn.Module) -> list[list[list[list[float]]]]:
    """For each module and question what it is fed at each token, those of the question once and of each choice."""
    asked: list[list[list[list[float]]]] = [[] for _ in modules]
    shown: dict[int, torch.Tensor] = {}

    def show(number: int, module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        shown[number] = inputs[0][0]

    handles = [
        module.register_forward_pre_hook(functools.partial(show, number)) for number, module in enumerate(modules)
    ]
    for question in questions.made():
        rows: list[list[list[float]]] = [[] for _ in modules]
        for ids, new in questions.sequences(question):
            with torch.no_grad():
                model.model(input_ids=torch.tensor([ids]))
            for number, states in shown.items():
                rows[number] += states[list(new)].tolist()
        for each, more in zip(asked, rows, strict=True):
            each.append(more)
    for handle in handles:
        handle.remove()
    return asked


def aggregated(numbers: list[float], way: str) -> float:
    return math.fsum(numbers) / len(numbers) if way == "mean" else math.sqrt(math.fsum(x * x for x in numbers))


@pytest.mark.parametrize("over_questions", ["mean", "l2"])
@pytest.mark.parametrize("over_tokens", ["mean", "l2"])
def test_activation(over_tokens: str, over_questions: str) -> None:
    model = language_model()
    criterion = Activation(tokens=over_tokens, questions=over_questions)  # type: ignore[arg-type]

    def expected(asked: list[list[list[float]]], units: int, width: int) -> list[float]:
        scores = []
        for unit in range(units):
            loud = [
                [math.sqrt(math.fsum(x * x for x in row[unit * width : (unit + 1) * width])) for row in rows]
                for rows in asked
            ]
            scores.append(aggregated([aggregated(each, over_tokens) for each in loud], over_questions))
        return scores

    neurons = criterion.scores(model, MlpNeurons(), context())
    same(neurons[1], expected(*fed(model, mlp_blocks(model.model)[1].down.module), 48, 1))
    heads = criterion.scores(model, Heads(), context())
    same(heads[2], expected(*fed(model, attention_blocks(model.model)[2].output.module), 2, 16))
    (hidden,) = criterion.scores(model, Hidden(), context())
    layers = zip(attention_blocks(model.model), mlp_blocks(model.model), strict=True)
    # queries, keys and values are fed one tensor, gate and up another: they count once
    norms = [block.module for attention, mlp in layers for block in (attention.query, mlp.up) if block is not None]
    each = [expected(asked, HIDDEN, 1) for asked in fed(model, *norms, model.model.get_output_embeddings())]
    same(hidden, [math.fsum(values) for values in zip(*each, strict=True)])


def by_channel(model: LanguageModel, *modules: nn.Module) -> list[list[tuple[list[float], list[float]]]]:
    """For each module and input channel of it what it is fed at every token, and the weights that take it up."""
    found = []
    for module, asked in zip(modules, fed(model, *modules), strict=True):
        channels = zip(*[row for question in asked for row in question], strict=True)
        weights: torch.Tensor = module.weight  # type: ignore[assignment]
        found.append([(list(channel), column) for channel, column in zip(channels, weights.T.tolist(), strict=True)])
    return found


def wanda_by_hand(channels: list[tuple[list[float], list[float]]]) -> list[float]:
    """For each channel."""
    scores = []
    for said, column in channels:
        norm = math.sqrt(math.fsum(x * x for x in said))
        scores.append(math.fsum(abs(w) * norm for w in column))
    return scores


def test_wanda() -> None:
    model = language_model()
    neurons = Wanda().scores(model, MlpNeurons(), context())
    same(neurons[1], wanda_by_hand(*by_channel(model, mlp_blocks(model.model)[1].down.module)))
    heads = Wanda().scores(model, Heads(), context())
    channels = wanda_by_hand(*by_channel(model, attention_blocks(model.model)[0].output.module))
    same(heads[0], [math.fsum(channels[:16]), math.fsum(channels[16:])])
    (hidden,) = Wanda().scores(model, Hidden(), context())
    readers = [part.module for part in Hidden().groups(model.model)[0].parts]
    each = [wanda_by_hand(channels) for channels in by_channel(model, *readers)]
    same(hidden, [math.fsum(values) for values in zip(*each, strict=True)])


@pytest.mark.parametrize("criterion", [Activation(), Wanda()])
def test_a_tied_head_is_no_reader_and_one_of_its_own_is(criterion: Criterion) -> None:
    tied, apart = language_model(tie_word_embeddings=True), language_model()
    apart.model.load_state_dict(tied.model.state_dict())
    (with_head,) = criterion.scores(tied, Hidden(), context())
    (own,) = criterion.scores(apart, residual.Hidden(), context())
    (shared,) = criterion.scores(tied, residual.Hidden(), context())
    same(own, with_head.tolist())
    assert (shared < 0.99 * own).all()


@pytest.mark.parametrize("metric", ["wifv", "ifv", "wifn"])
def test_flap(metric: str) -> None:
    model = language_model()

    def expected(module: nn.Module) -> list[float]:
        (channels,) = by_channel(model, module)
        scores = []
        for said, column in channels:
            mean = math.fsum(said) / len(said)
            variance = math.fsum((x - mean) ** 2 for x in said) / (len(said) - 1)
            scores.append(variance * math.fsum(w * w for w in column) if metric == "wifv" else variance)
        return scores if metric != "wifn" else wanda_by_hand(channels)

    criterion = FLAP(metric=metric)  # type: ignore[arg-type]
    neurons = criterion.scores(model, MlpNeurons(), context())
    same(neurons[2], expected(mlp_blocks(model.model)[2].down.module))
    heads = criterion.scores(model, Heads(), context())
    channels = expected(attention_blocks(model.model)[1].output.module)
    same(heads[1], [math.fsum(channels[:16]), math.fsum(channels[16:])])


ALL: list[tuple[Criterion, Structure, bool]] = [
    (MaxAbs(), MlpNeurons(), False),
    (Taylor(loss=GOLD), MlpNeurons(), True),
    (Taylor(loss=GOLD, order=2, grouping="vector"), Heads(), True),
    (SDM, MlpNeurons(), True),
    (Gates(loss=GOLD), Heads(), True),
    (Activation(), Hidden(), False),
    (Wanda(), Heads(), False),
    (FLAP(), MlpNeurons(), False),
    (BlockInfluence(), Layers(), False),
    (AngularDistance(), Layers(), False),
    (SLEB(), Layers(), False),
    (Alternate(), Layers(), False),
    (SLEB(loss=GOLD), Layers(), True),
]
"""Each criterion with a structure that it fits, and whether it looks at labels."""


@pytest.mark.parametrize(("criterion", "structure", "labels"), ALL, ids=lambda value: type(value).__name__)
def test_what_all_have_in_common(criterion: Criterion, structure: Structure, labels: bool) -> None:
    model = LanguageModel(model=tiny_model("llama", layers=4), tokenizer=None)  # type: ignore[arg-type]
    dense = LanguageModel(model=tiny_model("llama", layers=4), tokenizer=None)  # type: ignore[arg-type]
    parameters = list(model.model.parameters())
    parameters[3].requires_grad_(False)
    parameters[4].grad = torch.full_like(parameters[4], 3.0)
    weights = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    settings = {"dense": dense, "sparsity": 0.5}
    scores = criterion.scores(model, structure, context(**settings))  # type: ignore[arg-type]
    assert [len(score) for score in scores] == structure.units(model.model)
    assert all(bool(score.isfinite().all()) and not score.requires_grad for score in scores)
    # the model is left as it was
    left = model.model.state_dict()
    assert left.keys() == weights.keys() and all(torch.equal(left[name], tensor) for name, tensor in weights.items())
    assert [p.requires_grad for p in parameters] == [number != 3 for number in range(len(parameters))]
    assert [p.grad is None for p in parameters] == [number != 4 for number in range(len(parameters))]
    assert bool((parameters[4].grad == 3).all())
    for module in model.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks
        assert "forward" not in vars(module)
    # the same again, and whatever the answers are if no label is needed
    again = criterion.scores(model, structure, context(**settings))  # type: ignore[arg-type]
    assert all(torch.equal(*pair) for pair in zip(scores, again, strict=True))
    other = context(questions.with_other_answers(questions.made()), **settings)  # type: ignore[arg-type]
    turned = criterion.scores(model, structure, other)
    equal = all(torch.equal(*pair) for pair in zip(scores, turned, strict=True))
    assert not equal if labels and not isinstance(criterion, SLEB) else equal or labels
    assert ("labels" in criterion.needs) == labels
    assert structure.kind in criterion.kinds
    # in single precision it is the same to rounding, and no question's padding counts
    alone = criterion.scores(model, structure, context(**settings, batch=1))  # type: ignore[arg-type]
    if not isinstance(criterion, (KLTaylor, SLEB)) and getattr(criterion, "order", 1) == 1:
        for one, each in zip(scores, alone, strict=True):
            same(each, one.tolist(), 1e-4)


def test_needs() -> None:
    assert MaxAbs().needs == set()
    assert Taylor(loss=KL()).needs == {"calibration", "teacher_logits"}
    assert SDM.needs == {"calibration", "labels", "teacher_logits"}
    for criterion in (Activation(), Wanda(), FLAP(), BlockInfluence(), AngularDistance(), SLEB()):
        assert criterion.needs == {"calibration"}
    assert {type(criterion).kinds for criterion, structure, _ in ALL if structure.kind == "layers"} == {
        frozenset({"layers"})
    }


NAMED = {
    "activation": Activation(),
    "angular_distance": AngularDistance(),
    "block_influence": BlockInfluence(),
    "flap": FLAP(),
    "gates": Gates(loss=GOLD),
    "kl_taylor": KLTaylor(hard=CHOICES, soft=SharpenedKL()),
    "max_abs": MaxAbs(),
    "sleb": SLEB(),
    "taylor": Taylor(loss=GOLD),
    "wanda": Wanda(),
}


def test_the_command_line_builds_them() -> None:
    with initialize_config_dir(str(conf()), version_base="1.3"):
        for name, expected in NAMED.items():
            composed = compose(overrides=["+pruner=mlp", f"pruner/criterion={name}"])
            plain = OmegaConf.to_container(composed, resolve=True)
            assert build(plain, "", Allowed())["pruner"].criterion == expected
        other = compose(overrides=["+pruner=mlp", "pruner/criterion=taylor", "loss@pruner.criterion.loss=kl"])
        plain = OmegaConf.to_container(other, resolve=True)
        assert build(plain, "", Allowed())["pruner"].criterion == Taylor(loss=KL())


def test_units_that_a_criterion_does_not_know_are_refused_when_composed() -> None:
    register()
    with initialize_config_dir(str(conf()), version_base="1.3"):
        composed = compose("config", ["pruner/criterion=sleb"], return_hydra_config=True)
        with pytest.raises(ConfigError, match="SLEB knows layers, and the units of mlp_neurons are neurons"):
            typed(composed, composed.hydra)
