"""Sliced equals masked, for every structure on every architecture, and what is left is a model like any other."""

from __future__ import annotations

import contextlib
import copy
import functools
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, LAYERS, VOCABULARY, tiny_model
from silence import TOKENS, logits, silent
from transformers import PreTrainedModel
from units import flags

from regraft.interfaces import Criterion, Group, LanguageModel, PruningContext, Structure
from regraft.models.exporters.plain import Plain
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.criteria.l1 import L1
from regraft.pruning.criteria.l2 import L2
from regraft.pruning.criteria.random import Random
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.hidden import Hidden
from regraft.pruning.structures.kv_groups import KvGroups
from regraft.pruning.structures.layers import Layers
from regraft.pruning.structures.mlp_neurons import MlpNeurons

CLOSE = {"atol": 2e-5, "rtol": 1e-5}
WIDE = {"num_attention_heads": 4, "num_key_value_heads": 4}
MODELS = [(name, {}) for name in ARCHITECTURES] + [
    ("llama", {"mlp_bias": True, "attention_bias": True, "tie_word_embeddings": True}),
    ("olmo2", WIDE),
]
STRUCTURES = [KvGroups(), Layers(), Hidden()]
CASES = [
    pytest.param(structure, name, more, id=f"{structure.name}-{name}{'-more' if more else ''}")
    for structure in STRUCTURES
    for name, more in MODELS
    if (structure.name, name) != ("hidden", "gpt2")
]
"""GPT-2's norms subtract a mean: its hidden size cannot be cut."""
dense_model = functools.cache(tiny_model)
"""A model that no test changes."""


def wrapped(model: PreTrainedModel) -> LanguageModel:
    return LanguageModel(model=copy.deepcopy(model), tokenizer=None)  # type: ignore[arg-type]


def some(groups: list[Group], layer_dependent: bool) -> list[torch.Tensor]:
    """Which units stay: the same in each group, or others in each, and once all of them."""
    keep = []
    for number, group in enumerate(groups):
        gone = 1 if group.units < 4 else group.units // 2 - (number if layer_dependent else 0)
        stays = torch.randperm(group.units, generator=torch.Generator().manual_seed(number * layer_dependent))[gone:]
        keep.append(flags(group.units, range(group.units) if layer_dependent and number == 1 else stays.tolist()))
    return keep


def gone(keep: list[torch.Tensor]) -> list[list[int]]:
    return [(~kept).nonzero().flatten().tolist() for kept in keep]


@pytest.mark.parametrize("layer_dependent", [False, True])
@pytest.mark.parametrize(("structure", "architecture", "more"), CASES)
def test_sliced_equals_masked(structure: Structure, architecture: str, more: dict, layer_dependent: bool) -> None:
    dense = tiny_model(architecture, **more)
    smaller = wrapped(dense)
    keep = some(structure.groups(smaller.model), layer_dependent)
    structure.remove(smaller, keep)
    assert smaller.removed == {structure.name: tuple(map(tuple, gone(keep)))}
    assert structure.units(smaller.model) == [int(kept.sum()) for kept in keep]
    with silent(dense, structure.name, gone(keep)):
        expected = logits(dense)
    torch.testing.assert_close(logits(smaller.model), expected, **CLOSE)
    assert not torch.allclose(expected, logits(dense), atol=1e-2)


def order(architecture: str) -> list[Structure]:
    everything: list[Structure] = [Layers(), MlpNeurons(), KvGroups(), Hidden()]
    return everything[: 3 if architecture == "gpt2" else 4]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_after_the_other(architecture: str, backwards: bool) -> None:
    """All structures of one model, in steps between which others go; what is noted is numbered as in the dense one."""
    dense = tiny_model(architecture, layers=4)
    smaller = wrapped(dense)
    structures = order(architecture)[:: -1 if backwards else 1]
    for turn in range(2):
        for number, structure in enumerate(structures):
            keep = [
                flags(group.units, set(range(group.units)) - {(5 * turn + 3 * place + number) % group.units})
                if group.units > 1
                else flags(1, [0])
                for place, group in enumerate(structure.groups(smaller.model))
            ]
            structure.remove(smaller, keep)
    (layers,) = smaller.removed["layers"]
    assert len(layers) == 2
    with contextlib.ExitStack() as stack:
        for name, removed in smaller.removed.items():
            stack.enter_context(silent(dense, name, removed))
        expected = logits(dense)
    torch.testing.assert_close(logits(smaller.model), expected, **CLOSE)


@pytest.mark.parametrize(("structure", "architecture", "more"), CASES)
def test_what_is_left_keeps_its_kind_and_trains(structure: Structure, architecture: str, more: dict) -> None:
    dense = tiny_model(architecture, **more).to(torch.bfloat16)  # type: ignore[arg-type]
    for name, parameter in dense.named_parameters():
        parameter.requires_grad_("mlp" not in name)
    tied = dense.get_input_embeddings().weight is dense.get_output_embeddings().weight  # type: ignore[union-attr]
    language_model = wrapped(dense)
    structure.remove(language_model, some(structure.groups(language_model.model), False))
    smaller = language_model.model
    assert (smaller.get_input_embeddings().weight is smaller.get_output_embeddings().weight) == tied  # type: ignore[union-attr]
    for name, parameter in smaller.named_parameters():
        assert parameter.dtype == torch.bfloat16 and parameter.is_contiguous(), name
        assert parameter.requires_grad == ("mlp" not in name), name
    smaller.float().train().requires_grad_()
    smaller(input_ids=TOKENS).logits.logsumexp(-1).sum().backward()
    for name, parameter in smaller.named_parameters():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape, name
    smaller.eval()
    written = smaller.generate(TOKENS[:1], max_new_tokens=4, do_sample=False, pad_token_id=2, eos_token_id=None)
    for length in range(TOKENS.shape[1], written.shape[1]):
        (following,) = smaller(input_ids=written[:, :length], use_cache=False).logits[:, -1].argmax(-1)
        assert written[0, length] == following, "the cache of keys and values gives what the whole text gives"


@pytest.mark.parametrize(("structure", "architecture", "more"), CASES)
def test_a_uniform_model_is_saved_and_loaded(
    structure: Structure, architecture: str, more: dict, tmp_path: Path
) -> None:
    model = wrapped(dense_model(architecture, **more))
    model.tokenizer = Tokenizer()  # type: ignore[assignment]
    structure.remove(model, some(structure.groups(model.model), False))
    if (structure.name, architecture) == ("kv_groups", "gpt2"):
        with pytest.raises(ValueError, match=r"export=plain: .*attn\.c_attn\.weight 32x48"):
            Plain().write(model, tmp_path / "checkpoint")
        return
    Plain().write(model, tmp_path / "checkpoint")
    loaded = type(model.model).from_pretrained(tmp_path / "checkpoint").eval()  # type: ignore[attr-defined]
    torch.testing.assert_close(logits(loaded), logits(model.model), atol=1e-6, rtol=1e-6)
    assert loaded.num_parameters() == model.model.num_parameters()


class Tokenizer:
    """Writes nothing."""

    def save_pretrained(self, folder: Path) -> None: ...


@pytest.mark.parametrize(
    ("structure", "units", "message"),
    [
        (Hidden(), [range(23)], r"export=plain: .*q_proj\.weight 32x23"),
        (KvGroups(), [[0], [0, 1], [0]], r"export=plain: .*layers\.0.*q_proj\.weight 16x32"),
    ],
)
def test_what_no_plain_checkpoint_can_hold_is_refused(
    structure: Structure, units: list, message: str, tmp_path: Path
) -> None:
    model = wrapped(dense_model("llama"))
    model.tokenizer = Tokenizer()  # type: ignore[assignment]
    groups = structure.groups(model.model)
    structure.remove(model, [flags(group.units, kept) for group, kept in zip(groups, units, strict=True)])
    with pytest.raises(ValueError, match=message):
        Plain().write(model, tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())


def pruner(criterion: Criterion, structure: Structure) -> Pruner:
    return Pruner(criterion=criterion, structure=structure, allocation=Layerwise())


@pytest.mark.parametrize("criterion", [L1(), L2(combine="max"), Random()], ids=["l1", "l2", "random"])
@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.name)
def test_steps_and_one_shot_remove_the_same(structure: Structure, criterion: Criterion) -> None:
    dense = tiny_model("olmo2", layers=4, num_key_value_heads=4)
    with_steps, at_once = wrapped(dense), wrapped(dense)
    units = pruner(criterion, structure).left(at_once)
    for model, targets in ((with_steps, (0.25, 0.5)), (at_once, (0.5,))):
        for target in targets:
            context = PruningContext(generator=torch.Generator().manual_seed(3))
            pruner(criterion, structure).prune(model, units, target, context)
    assert sum(map(len, at_once.removed[structure.name])) == sum(units[structure.name]) // 2
    if structure.name != "hidden" or isinstance(criterion, Random):
        assert with_steps.removed == at_once.removed


def test_l2_of_layers_and_channels_is_the_norm_of_what_they_own() -> None:
    model = wrapped(dense_model("llama"))
    MlpNeurons().remove(model, [flags(48, range(width)) for width in (48, 7, 20)])  # unequal widths
    context = PruningContext(generator=torch.Generator())
    (scores,) = L2().scores(model, Layers(), context)
    for number, layer in enumerate(model.model.model.layers):  # type: ignore[union-attr]
        squares = sum(float((weight.detach().double() ** 2).sum()) for weight in layer.parameters() if weight.ndim == 2)
        assert float(scores[number]) == pytest.approx(squares**0.5, rel=1e-5)
    (scores,) = L2().scores(model, Hidden(), context)
    writes = ("o_proj", "down_proj")
    for channel in (0, 31):
        squares = 0.0
        for name, weight in model.model.named_parameters():
            if weight.ndim == 2:
                owned = weight[channel] if any(way in name for way in writes) else weight[:, channel]
                squares += float((owned.detach().double() ** 2).sum())
        assert float(scores[channel]) == pytest.approx(squares**0.5, rel=1e-5)


def test_a_random_draw_stays_with_its_unit_when_layers_go() -> None:
    whole, shorter = wrapped(dense_model("llama")), wrapped(dense_model("llama"))
    Layers().remove(shorter, [flags(LAYERS, [0, 2])])
    for structure in (MlpNeurons(), KvGroups()):
        scores = [
            Random().scores(model, structure, PruningContext(generator=torch.Generator().manual_seed(5)))
            for model in (whole, shorter)
        ]
        assert len(scores[1]) == 2
        assert torch.equal(scores[0][0], scores[1][0]) and torch.equal(scores[0][2], scores[1][1])


def test_a_norm_that_subtracts_a_mean_is_refused_before_anything_is_cut() -> None:
    model = wrapped(dense_model("gpt2"))
    before = logits(model.model)
    with pytest.raises(ValueError, match="LayerNorm subtracts the mean.*Choose a model with RMS norms"):
        Hidden().remove(model, [flags(32, range(16))])
    assert torch.equal(logits(model.model), before) and not model.removed


def test_layers_that_know_their_number_are_refused() -> None:
    model = wrapped(tiny_model("gpt2", scale_attn_by_inverse_layer_idx=True))
    with pytest.raises(ValueError, match=r"attn\.scaling of a decoder layer depends on its number"):
        Layers().remove(model, [flags(LAYERS, [0, 2])])
    assert len(model.model.transformer.h) == LAYERS and not model.removed  # type: ignore[union-attr]


def test_heads_in_another_order_are_refused() -> None:
    """GPT-NeoX keeps query, key and value of one head together."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = AutoConfig.for_model("gpt_neox", vocab_size=VOCABULARY, max_position_embeddings=64, **shape)
    model = wrapped(AutoModelForCausalLM.from_config(config).eval())
    before = logits(model.model)
    with pytest.raises(ValueError, match="lie in one matrix, but not one after the other"):
        KvGroups().remove(model, [flags(4, [0, 1])] * 2)
    assert torch.equal(logits(model.model), before)


def test_sliding_and_full_layers_keep_their_kind() -> None:
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    dense = tiny_model("gemma3", layers=4, layer_types=kinds, sliding_window=4)
    smaller = wrapped(dense)
    Layers().remove(smaller, [flags(4, [1, 2, 3])])
    assert smaller.model.config.layer_types == kinds[1:]
    with silent(dense, "layers", [[0]]):
        torch.testing.assert_close(logits(smaller.model), logits(dense), **CLOSE)
    assert [layer.self_attn.layer_idx for layer in smaller.model.model.layers] == [0, 1, 2]  # type: ignore[union-attr]


def test_masks_of_single_weights_go_with_what_is_cut() -> None:
    model = wrapped(dense_model("llama"))
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(LAYERS)]
    for name in names:
        parameter = model.model.get_parameter(name)
        model.masks[name] = parameter > 0
        parameter.data.mul_(model.masks[name])
    MlpNeurons().remove(model, [flags(48, range(10, 20))] * LAYERS)
    Hidden().remove(model, [flags(32, range(4, 20))])
    Layers().remove(model, [flags(LAYERS, [0, 2])])
    assert list(model.masks) == names[:2]
    for name, mask in model.masks.items():
        assert mask.shape == (10, 16) and torch.equal(model.model.get_parameter(name) != 0, mask)
