"""Why the L2 norm falls below random: `python docs/pruning/l2_below_random.py docs/pruning`.

Measures on the model of the study (SmolLM2-135M fine-tuned on CommonsenseQA, trained anew where the cache does not have
it), one-shot; nothing is recovered. Writes two tables and a figure into the folder, and the tables as Markdown to
standard output. docs/pruning/l2_below_random.md says what they mean.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import pandas
import torch
from hydra import compose, initialize_config_dir
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from scipy.stats import spearmanr

from analysis.figures.style import COLOURS, CYCLE, PLAIN, grid, legend, style
from analysis.statistics import paired_bootstrap
from regraft.__main__ import conf
from regraft.cache import Cache
from regraft.config.schema import RunConfig
from regraft.environment import describe
from regraft.interfaces import Batch, Criterion, EncodedQuestion, Group, LanguageModel, PruningContext
from regraft.models.architecture import decoder_layers
from regraft.models.forward import forward
from regraft.models.precision import autocast
from regraft.pruning.activations import input_statistics, tokens, visit_inputs, watch_inputs
from regraft.pruning.allocation.layerwise import removed
from regraft.pruning.criteria.flap import FLAP
from regraft.pruning.criteria.l2 import L2
from regraft.pruning.criteria.random import Random
from regraft.pruning.gradients import silenced
from regraft.recovery.processes import Processes
from regraft.stages import prepare
from regraft.stages.calibration import Questions
from regraft.stages.context import Context
from regraft.stages.plan import plan
from regraft.sweeps.identity import register, typed
from regraft.tracking.none import Silent

log = logging.getLogger("l2_below_random")

Masks = list[torch.Tensor]
"""(units,) bool for each layer."""

CRITERIA = ("activation", "wanda", "flap", "taylor")
"""Names in conf/pruner/criterion, asked beside L2 and random."""
VARIANTS = {
    "gate alone": L2(projections=("gate",)),
    "up alone": L2(projections=("up",)),
    "down alone": L2(projections=("down",)),
}
CALIBRATION = ("calibration.questions=64", "calibration.precision=auto")
SEEDS = (0, 1, 2)
SHARE = 0.1
SHARES = (SHARE, 0.2)
BLOCK = 32
"""Weights that the 4-bit format of this model's source scales together."""
LEVELS = 15
"""Steps between the smallest and the largest of them."""
WORST = 3
"""Layers looked at alone: those in which L2 does most damage."""
PROBED = 1
"""Calibration batches over which the answers of two models are compared."""

Arm = tuple[str, str, float]
"""What it is asked for, its name, and the share of the neurons that goes."""


@dataclass
class Study:
    """The dense model, the questions, and which of them each arm answered rightly."""

    config: RunConfig
    context: Context
    model: LanguageModel
    encoded: Sequence[EncodedQuestion]
    gold: numpy.ndarray
    right: dict[Arm, numpy.ndarray] = field(default_factory=dict)

    @property
    def groups(self) -> list[Group]:
        return self.config.pruner.structure.groups(self.model.model)

    @property
    def calibration(self) -> Questions:
        return Questions(self.context, self.model)

    def pruning(self, seed: int = 0) -> PruningContext:
        generator = torch.Generator().manual_seed(seed)
        return PruningContext(generator=generator, sparsity=SHARE, data=self.calibration)

    def scores(self, criterion: Criterion, seed: int = 0) -> torch.Tensor:
        """(layers, units) float64; the lowest go first."""
        return torch.stack(criterion.scores(self.model, self.config.pruner.structure, self.pruning(seed))).double()

    def lowest(self, scores: torch.Tensor, share: float) -> torch.Tensor:
        """(layers, units) bool: the units of lowest score, the same share of each layer."""
        structure = self.config.pruner.structure
        return torch.stack(
            [
                ~structure.select(group, score, group.units - removed(group.units, share))
                for group, score in zip(self.groups, scores, strict=True)
            ]
        )

    def without(self, gone: torch.Tensor, adjust: Criterion | None = None) -> LanguageModel:
        """A copy of the dense model from which the units are cut out."""
        model, keep = copy.deepcopy(self.model), list(~gone)
        structure = self.config.pruner.structure
        if adjust is not None:
            keep = adjust.adjust(model, structure, keep, self.pruning())
        structure.remove(model, keep)
        return model

    def ask(self, part: str, name: str, gone: torch.Tensor, adjust: Criterion | None = None) -> None:
        """Note which questions the model without the units `gone` answers rightly."""
        model = self.without(gone, adjust)
        scores = self.config.evaluation.scores(model, self.encoded)[self.config.evaluation.normalisation]
        arm = (part, name, float(gone.double().mean()))
        self.right[arm] = scores.argmax(axis=1) == self.gold
        log.info("%s, %s, %.3f: %.1f %%", *arm, 100 * self.right[arm].mean())


def composed(criterion: str) -> RunConfig:
    """The config of a run of the study that trains nothing after pruning."""
    register()
    with initialize_config_dir(str(conf()), version_base="1.3"):
        overrides = ["experiment=l2pft_vs_l2psd", "loss=none", f"pruner/criterion={criterion}", *CALIBRATION]
        config = compose("config", [*overrides, "sparsity=0.1"], return_hydra_config=True)
        return typed(config, config.hydra)


def studied(questions: int) -> Study:
    """The study's dense model and the first of its validation questions."""
    config = composed("l2")
    torch.set_num_threads(config.runtime.threads)
    device = torch.device("cpu")
    cache = Cache(config.runtime.cache)
    context = Context(config=config, cache=cache, device=device, log=Silent(), processes=Processes(device))
    context.dense = prepare.dense(plan(config)[0], context)
    model = context.load_dense()
    asked = context.labelled("test")[:questions]
    gold = numpy.array([question.answer for question in asked])
    return Study(config=config, context=context, model=model, encoded=context.encode(model, asked), gold=gold)


# ------------------------------------------------------------------------------------------ layer by layer


def contributions(study: Study) -> torch.Tensor:
    """(layers, units): mean over tokens of |a_j| ||down_j||, the length of what a neuron adds to the stream."""
    groups = study.groups
    statistics = input_statistics(study.model, study.calibration, [group.readers[0].module for group in groups])
    return torch.stack(
        [
            seen.absolute / seen.count * group.weights()["down"].double().norm(dim=1)
            for seen, group in zip(statistics, groups, strict=True)
        ]
    )


def alignment(study: Study) -> torch.Tensor:
    """(layers, units): root mean square over tokens of up_j x / (||up_j|| ||x||), times the same of the gate.

    How well the weights point where the inputs lie, whatever their norm.
    """
    groups = study.groups
    moments = [torch.zeros(()).double() for _ in groups]

    def take(layer: int, rows: torch.Tensor) -> None:
        directions = torch.nn.functional.normalize(rows.double(), dim=1)
        moments[layer] = moments[layer] + directions.T @ directions / len(rows)

    visit_inputs(study.model, study.calibration, [group.parts[0].module for group in groups], take)
    batches = sum(1 for _ in study.calibration.batches())
    found = []
    for group, moment in zip(groups, moments, strict=True):
        cosines = [torch.nn.functional.normalize(group.weights()[name].double(), dim=1) for name in ("gate", "up")]
        found.append(
            torch.stack([((each @ moment) * each).sum(dim=1) / batches for each in cosines]).prod(dim=0).sqrt()
        )
    return torch.stack(found)


def output_errors(study: Study, arms: Mapping[str, torch.Tensor]) -> pandas.DataFrame:
    """By layer and arm: ||what goes|| / ||output of the MLP||, root mean squares over tokens.

    The first token of a question is left out: there a few neurons are thousands of times louder than any elsewhere.
    """
    down = [group.weights()["down"] for group in study.groups]
    squares = torch.zeros(len(down), len(arms) + 1, dtype=torch.float64)

    def see(layer: int, inputs: torch.Tensor, batch: Batch) -> None:
        there = tokens(batch).clone()
        there[:, 0] = False
        rows, weight = inputs[there].float(), down[layer]
        squares[layer, -1] += (rows @ weight).double().square().sum()
        for number, gone in enumerate(arms.values()):
            squares[layer, number] += (rows[:, gone[layer]] @ weight[gone[layer]]).double().square().sum()

    watch_inputs(study.model, study.calibration, [group.readers[0].module for group in study.groups], see)
    return pandas.DataFrame(
        (squares[:, :-1] / squares[:, -1:]).sqrt().numpy(), columns=[f"error {arm}" for arm in arms]
    )


def loudest(study: Study, scores: torch.Tensor) -> list[int]:
    """For each layer the rank, from 0, by `scores` of the neuron whose |a_j| ||down_j|| is greatest at any token."""
    groups = study.groups
    statistics = input_statistics(study.model, study.calibration, [group.readers[0].module for group in groups])
    ranks = scores.argsort(dim=1).argsort(dim=1)
    return [
        int(ranks[layer, (seen.largest * group.weights()["down"].norm(dim=1)).argmax()])
        for layer, (seen, group) in enumerate(zip(statistics, groups, strict=True))
    ]


@torch.no_grad()
def divergence(study: Study, models: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Name -> mean KL from the dense model's next-token distribution, over all tokens of some calibration questions."""
    batches = list(itertools.islice(study.calibration.batches(), PROBED))

    def answers(model: LanguageModel) -> torch.Tensor:
        with autocast(model.model, study.config.evaluation.precision):
            logits = torch.cat([forward(model.model, batch).logits for batch in batches])
        return logits.float().log_softmax(dim=-1)

    dense = answers(study.model)
    found = {}
    for name, gone in models.items():
        with silenced(study.groups, list(gone)):
            found[name] = float((dense.exp() * (dense - answers(study.model))).sum(dim=-1).mean())
        log.info("KL %s: %.4f", name, found[name])
    return found


def alone(gone: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
    """`gone` in some layers only."""
    there = torch.zeros_like(gone)
    there[layers] = gone[layers]
    return there


def four_bits(study: Study, least: torch.Tensor) -> pandas.DataFrame:
    """What the 4-bit source of the weights and the fine-tuning do to the set of least norm.

    By layer: the greatest number of different values in a block of 32 weights before fine-tuning; the share of the
    tenth of least norm that stays in it when each of those weights moves by a uniform draw within its rounding step;
    and the share that was in it before fine-tuning.
    """
    base = study.config.model.load(study.context.cache)
    generator = torch.Generator().manual_seed(0)
    structure = study.config.pruner.structure
    before = study.lowest(torch.stack(L2().scores(base, structure, study.pruning())), SHARE)
    values = []
    for group in structure.groups(base.model):
        most = 0
        for part in group.parts:
            blocks = part.parameter.detach().unflatten(1, (-1, BLOCK))
            ordered = blocks.sort(dim=-1).values
            most = max(most, int((ordered.diff(dim=-1) > 1e-6 * ordered.abs().amax()).sum(dim=-1).max()) + 1)
            step = (blocks.amax(dim=-1, keepdim=True) - blocks.amin(dim=-1, keepdim=True)) / LEVELS
            noise = (torch.rand(blocks.shape, generator=generator) - 0.5) * step
            part.parameter.data = (blocks + noise).flatten(1)
        values.append(most)
    after = study.lowest(torch.stack(L2().scores(base, structure, study.pruning())), SHARE)
    size = before.sum(dim=1)
    return pandas.DataFrame(
        {
            "values in a block": values,
            "kept under rounding": ((before & after).sum(dim=1) / size).numpy(),
            "kept by fine-tuning": ((before & least).sum(dim=1) / size).numpy(),
        }
    )


# ------------------------------------------------------------------------------------------------- arms


def protected(study: Study, scores: torch.Tensor, by: torch.Tensor, share: float) -> torch.Tensor:
    """What goes by `scores` if the share of neurons greatest in `by` may not go; as many go."""
    return study.lowest(scores.masked_fill(study.lowest(-by, share), float("inf")), SHARE)


def within(study: Study, gone: torch.Tensor, by: torch.Tensor, share: float) -> torch.Tensor:
    """Of the units `gone`, those lowest in `by`, as many as `share` of a layer."""
    return study.lowest(by.masked_fill(~gone, float("inf")), share)


def ask_criteria(study: Study) -> dict[str, torch.Tensor]:
    """Each criterion, as its YAML file has it; returns what each removes at the smaller share."""
    gone = {}
    dense = torch.zeros(len(study.groups), study.groups[0].units, dtype=torch.bool)
    study.ask("criteria", "dense", dense)
    named: dict[str, tuple[Criterion, int]] = {"l2": (study.config.pruner.criterion, 0)}
    named |= {f"random {seed}": (Random(), seed) for seed in SEEDS}
    named |= {name: (composed(name).pruner.criterion, 0) for name in CRITERIA}
    for name, (criterion, seed) in named.items():
        scores = study.scores(criterion, seed)
        for share in SHARES:
            mask = study.lowest(scores, share)
            study.ask("criteria", name, mask, criterion)
            gone.setdefault(name, mask)
    return gone


def ask_variants(study: Study, gone: Mapping[str, torch.Tensor]) -> None:
    """Whether it is one matrix, the norm's weights that stand before them, the tail of the norms, or a missing bias."""
    for name, criterion in VARIANTS.items():
        study.ask("ways to take the norm", f"l2, {name}", study.lowest(study.scores(criterion), SHARE))
    folded = []
    for group, layer in zip(study.groups, decoder_layers(study.model.model), strict=True):
        scale = layer.post_attention_layernorm.weight.detach()
        weights = group.weights()
        parts = [weights["gate"] * scale, weights["up"] * scale, weights["down"]]
        folded.append(torch.stack([part.norm(dim=1) for part in parts]).norm(dim=0))
    study.ask("ways to take the norm", "l2, norm's weight folded in", study.lowest(torch.stack(folded), SHARE))
    largest = study.lowest(-study.scores(L2()), SHARE)
    study.ask("ways to take the norm", "the largest go instead", largest)
    study.ask("ways to take the norm", "l2, mean kept as a bias", gone["l2"], FLAP())


def ask_layers(study: Study, gone: Mapping[str, torch.Tensor], worst: Sequence[int]) -> None:
    """Whether a few layers do it all."""
    others = [layer for layer in range(len(study.groups)) if layer not in worst]
    named = ", ".join(map(str, worst))
    study.ask("layers", f"l2 in layers {named} only", alone(gone["l2"], worst))
    study.ask("layers", f"random 0 in layers {named} only", alone(gone["random 0"], worst))
    study.ask("layers", f"l2 in all but layers {named}", alone(gone["l2"], others))


def ask_neurons(study: Study, gone: Mapping[str, torch.Tensor], contribution: torch.Tensor) -> None:
    """Whether it is the neurons that contribute most, among those of least norm."""
    norms, chance = study.scores(L2()), study.scores(Random(), seed=SEEDS[-1] + 1)
    study.ask("neurons", "l2, the 5% that contribute most spared", protected(study, norms, contribution, 0.05))
    study.ask("neurons", "l2, a random 5% spared", protected(study, norms, chance, 0.05))
    study.ask("neurons", "of l2's, only the 5% that contribute least", within(study, gone["l2"], contribution, 0.05))
    study.ask("neurons", "of l2's, only the 1% that contribute most", within(study, gone["l2"], -contribution, 0.01))
    study.ask("neurons", "random 0, only 5%", study.lowest(study.scores(Random(), 0), 0.05))
    study.ask("neurons", "random 0, only 1%", study.lowest(study.scores(Random(), 0), 0.01))


# ---------------------------------------------------------------------------------------- tables, figure


def accuracy_table(study: Study) -> pandas.DataFrame:
    """Accuracy of each arm and its paired differences, in points, with 95 % intervals over the questions."""
    lines = []
    random = {
        share: numpy.stack([line for arm, line in study.right.items() if _is(arm, "random ", share)], axis=1)
        for share in SHARES
    }
    norms = {share: next(line for arm, line in study.right.items() if _is(arm, "l2", share)) for share in SHARES}
    means = {("criteria", f"random, mean of {len(SEEDS)}", share): lines for share, lines in random.items()}
    for (part, name, share), right in (study.right | means).items():
        column = right.astype(float).reshape(len(study.gold), -1)
        against = min(SHARES, key=lambda given: abs(given - share))
        lines.append(
            {
                "part": part,
                "removed": name,
                "share %": f"{100 * share:.1f}",
                "accuracy %": f"{100 * column.mean():.1f}",
                "minus random": _difference(column.mean(axis=1, keepdims=True) - random[against]),
                "minus l2": _difference(column - norms[against][:, None]),
            }
        )
    return pandas.DataFrame(lines)


def _is(arm: Arm, name: str, share: float) -> bool:
    return arm[0] == "criteria" and arm[1].startswith(name) and abs(arm[2] - share) < 0.001


def _difference(differences: numpy.ndarray) -> str:
    low, high = paired_bootstrap(differences)
    # the mean of the seeds minus itself is -0.0 in floating point
    mean = round(100 * float(differences.mean()), 6) + 0.0
    return f"{mean:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def markdown(table: pandas.DataFrame) -> str:
    """A table of Markdown."""
    rows = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def draw(
    layers: pandas.DataFrame, norms: torch.Tensor, contribution: torch.Tensor, gone: torch.Tensor, path: Path
) -> None:
    """Norm and contribution of the neurons of the worst layer; damage and error by layer."""
    worst = int(layers["KL l2"].idxmax())
    looks = {
        "l2": COLOURS["criterion"]["l2"],
        "random 0": COLOURS["criterion"]["random"],
        "wanda": CYCLE[0],
        "largest norm": CYCLE[3],
    }
    with style(PLAIN):
        layout = grid(PLAIN, 3, sharex=False, sharey=False)
        neurons, damage, errors = layout.axes
        out = gone[worst]
        for chosen, colour in ((~out, looks["random 0"][0]), (out, looks["l2"][0])):
            neurons.scatter(norms[worst][chosen], contribution[worst][chosen], s=2, color=colour, linewidths=0)
        neurons.set_xlabel("L2 norm of a neuron")
        neurons.set_ylabel("Contribution, mean over tokens")
        neurons.set_yscale("log")
        neurons.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        neurons.yaxis.set_major_formatter("{x:g}")
        neurons.yaxis.set_minor_formatter(NullFormatter())
        layout.title(neurons, f"Neurons of layer {worst}; blue: the tenth that L2 removes")
        handles = {}
        for name, (colour, marker) in looks.items():
            for axes, column in ((damage, f"KL {name}"), (errors, f"error {name}")):
                if column in layers:
                    (handles[name],) = axes.plot(
                        layers.index, layers[column], color=colour, marker=marker, markersize=3, linewidth=0.9
                    )
        damage.set_yscale("log")
        layout.title(damage, "KL to the dense model (nats a token), one layer pruned")
        layout.title(errors, "Error of the MLP's output, relative")
        for axes in (damage, errors):
            axes.set_xlabel("Layer")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        legend(layout.figure, handles, "10 % of each layer's neurons removed by")
        layout.figure.savefig(path, dpi=200)


def measure(study: Study, folder: Path) -> str:
    """All tables and the figure; the tables as Markdown."""
    gone = ask_criteria(study)
    norms, contribution = study.scores(L2()), contributions(study)
    ask_neurons(study, gone, contribution)
    ask_variants(study, gone)
    points = alignment(study)
    masks = {name: gone[name] for name in ("l2", "random 0", "wanda")}
    layers = pandas.DataFrame(
        {
            "rho(norm, contribution)": [spearmanr(*pair).statistic for pair in zip(norms, contribution, strict=True)],
            "l2's share of contribution": ((contribution * gone["l2"]).sum(dim=1) / contribution.sum(dim=1)).numpy(),
            "alignment, l2's / others'": [
                float(each[out].median() / each[~out].median()) for each, out in zip(points, gone["l2"], strict=True)
            ],
            "rank of the loudest": loudest(study, norms),
        }
    )
    largest = {"largest norm": study.lowest(-norms, SHARE)}
    layers = layers.join(output_errors(study, masks | largest))
    for name in ("l2", "random 0"):
        mask = masks[name]
        one = {f"{name} {layer}": alone(mask, [layer]) for layer in range(len(mask))}
        layers[f"KL {name}"] = list(divergence(study, one).values())
    layers = layers.join(four_bits(study, gone["l2"]))
    layers.index.name = "layer"
    folder.mkdir(parents=True, exist_ok=True)
    layers.to_csv(folder / "l2_below_random_layers.csv", float_format="%.4g")
    draw(layers, norms, contribution, gone["l2"], folder / "l2_below_random.png")
    ask_layers(study, gone, sorted(layers["KL l2"].nlargest(WORST).index))
    accuracy = accuracy_table(study)
    accuracy.to_csv(folder / "l2_below_random_accuracy.csv", index=False)
    rounded = layers.reset_index().map(lambda value: f"{value:.3g}" if isinstance(value, float) else value)
    made = describe(study.context.device)
    machine = ", ".join(f"{key} {made[key]}" for key in ("commit", "processor", "cores", "threads", "libraries"))
    return f"{len(study.gold)} questions; {machine}\n\n{markdown(accuracy)}\n{markdown(rounded)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=128, help="how many of the 1,221 validation questions")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    sys.stdout.write(measure(studied(given.questions), given.folder))


if __name__ == "__main__":
    main()
