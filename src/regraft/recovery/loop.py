"""The training loop: forward, loss, backward, step.

Six seams let every method in without a branch here: the `BatchSource` (what is read), the teacher's `Answers` (which
may follow the student), extra `terms` (what is added to the loss), `on_gradients` (what reads or changes the gradients
before they are used), `after_step` (what is done to the weights after each optimizer step) and `state` / `restore`
(rewinding). What a loss learns besides the student is trained with it and dropped at the end.

The masks of the student hold: what is masked has no gradient and stays zero.

A training that is given a `Progress` goes on from there, and ends with the values of one that was never interrupted.
"""

from __future__ import annotations

import contextlib
import copy
import math
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, get_scheduler

from regraft import interruption
from regraft.cache import digest
from regraft.config.ranges import ConfigError
from regraft.interfaces import AfterStep, Answers, Batch, BatchSource, LanguageModel, Loss, ModelOutputs, Moment, Term
from regraft.models.cost import Cost, Ledger, attended, counted
from regraft.models.precision import autocast
from regraft.recovery.adamw_8bit import AdamW8bit
from regraft.recovery.checkpointing import recomputing
from regraft.recovery.processes import Processes, like, whole
from regraft.recovery.progress import Kept, Progress, Spent, TrainingState
from regraft.recovery.trained import restrict
from regraft.recovery.training import Training
from regraft.tasks.packing import move

SEEDS = 2**63
LEARNED = "learned."
"""Before the names of what the loss learns besides the student."""
Observer = Callable[[dict[str, float]], None]
"""Gets the numbers of each step: `TRAINING_COLUMNS` of `regraft.records` without the stage."""


class TrainingDiverged(ValueError):
    """The loss or its gradient is no longer a number."""


class Trainer:
    """Trains `student` in place.

    Args:
        student: The model; its weights are trained in float32 and given back in their own dtype.
        batches: Feeds each step, those of this training alone.
        loss: What is minimised.
        training: Hyper-parameters.
        steps: Optimizer steps in all; the learning rate's course is laid over them.
        first: Steps of them that others have done: this one begins after them.
        last: The step that it ends with; None takes all.
        teacher: Answers batches, if the loss needs it.
        seed: Of what the loss draws.
        vocabulary: Logits that mean a token: the loss sees no others, of student and teacher. None: all do.
        terms: Regularisers.
        on_gradients: Called in order with the gradients of each step, before those of masked weights are dropped and
            the rest is clipped.
        after_step: Called in order after each optimizer step.
        observe: Gets the numbers of each step.
        bar: Shows a progress bar with this text; None shows none.
        progress: Where the training is kept while it is not at its end; None keeps nothing.
        processes: Those that train together; None trains in this one.
        key: Where the config holds `training`, for messages.
    """

    def __init__(
        self,
        student: LanguageModel,
        batches: BatchSource,
        loss: Loss,
        training: Training,
        steps: int,
        *,
        first: int = 0,
        last: int | None = None,
        teacher: Answers | None = None,
        seed: int = 0,
        vocabulary: int | None = None,
        terms: Sequence[Term] = (),
        on_gradients: Sequence[AfterStep] = (),
        after_step: Sequence[AfterStep] = (),
        observe: Observer = lambda numbers: None,
        bar: str | None = None,
        progress: Progress | None = None,
        processes: Processes | None = None,
        key: str = "recovery",
    ) -> None:
        self.student, self.batches, self.loss, self.training, self.steps = student, batches, loss, training, steps
        self.teacher, self.seed, self.terms = teacher, seed, tuple(terms)
        self.vocabulary = vocabulary
        self.on_gradients, self.after_step = tuple(on_gradients), tuple(after_step)
        self.observe, self.bar, self.progress, self.key = observe, bar, progress, key
        self.first, self.last = first, steps if last is None else last
        self.step = first
        self.examples = 0
        self.spent = Spent()
        self._began = time.perf_counter()
        self.seconds = 0.0
        """Spent in earlier processes, up to where this one went on."""
        self.lines: list[dict[str, float]] = []
        """The numbers of each step so far, also of those before an interruption."""
        self.stored_dtype = student.model.dtype
        self.processes = processes or Processes(student.model.device)
        self._told = False
        self._held = dict(student.masks)
        self._asked = loss.needs & {"hidden_states", "attentions"}
        self.model: PreTrainedModel = student.model.float()
        if training.lora is not None and student.masks and self.processes.shard:
            raise ConfigError(
                f"runtime.shard=true: must be false with {key}.lora and a masked model, whose masks are not divided."
            )
        pair = attended(self.model)
        self._undo = restrict(student, training)
        if self.processes.shard:
            # dividing a model changes its class: the student stays as it is, and gets the weights at the end
            self.model = copy.deepcopy(self.model)
        self._ledger = Ledger(recomputes=training.gradient_checkpointing)
        self._ledger.know(self.model, Cost.of(self.model, pair))
        self._module = self.processes.wrapped(self.model)
        self._learned = self._learns()
        groups = _groups(self.model, training.weight_decay)
        if self._learned is not None:
            groups.append({"params": list(self._learned.parameters()), "weight_decay": 0.0})
        self.optimizer = _optimizer(groups, training)
        name = "constant_with_warmup" if training.decay == "constant" else training.decay
        self.rates = get_scheduler(
            name,
            self.optimizer,
            num_warmup_steps=math.ceil(training.warmup * steps),
            # one more than the steps, so that the last step still moves
            num_training_steps=steps + 1,
        )
        if first:
            self._begin_after(first)

    def _learns(self) -> torch.nn.Module | None:
        """What the loss learns besides the student, made for what both say to the first batch."""
        if not self.loss.learning:
            return None
        assert self.processes.count == 1, "what it learns is not shared"
        batch, _ = next(iter(self.batches.step(0, self.student)))
        with torch.no_grad():
            said, taught = self._said(move(batch, self.model.device))
            torch.manual_seed(self.seed)
            learned = self.loss.learns(said, taught)
        return None if learned is None else learned.to(self.model.device)

    def _said(self, batch: Batch) -> tuple[ModelOutputs, ModelOutputs | None]:
        """What student and teacher say to a batch, under one autocast.

        So a dense student differs from its teacher by nothing, if both hold float32.
        """
        with autocast(self.student.model, self.training.precision):
            taught = None if self.teacher is None else self.teacher(batch.for_teacher or batch)
            said = ModelOutputs(**self._module(batch, self._asked))
        if self.vocabulary is None:
            return said, taught
        return said.within(self.vocabulary), None if taught is None else taught.within(self.vocabulary)

    def _moment(self, part: int) -> Moment:
        """Of part `part` of the step that is taken now."""
        generator = torch.Generator().manual_seed(
            int(digest([self.seed, self.step, part, self.processes.rank]), 16) % SEEDS
        )
        return Moment(share=self.step / self.steps, generator=generator, learned=self._learned)

    def run(self, until: int | None = None) -> None:
        """Train up to step `until`, or to the end.

        Raises:
            TrainingDiverged: The loss or the gradient's norm is not finite.
            Stopped: The process was told to stop; what was done is kept.
        """
        # in evaluation mode: with dropout the student would be a noisy version of what the teacher is
        self.model.eval()
        last = self.last if until is None else until
        self._began = time.perf_counter()
        if not self.lines:
            # at the beginning only: who rewinds a training later means to go back
            self._go_on()
        together = interruption.deferred() if self.processes.count > 1 else contextlib.nullcontext()
        with (
            together,
            recomputing(self.model) if self.training.gradient_checkpointing else contextlib.nullcontext(),
            tqdm(
                total=last - self.first,
                initial=self.step - self.first,
                desc=self.bar,
                disable=self.bar is None,
                unit=" steps",
                leave=False,
            ) as bar,
        ):
            started, seen = time.perf_counter(), self.examples
            while self.step < last:
                try:
                    with interruption.deferred():
                        numbers = self._step()
                        self.lines.append(numbers)
                        self.observe(numbers)
                        self._keep()
                    if self._told:
                        raise interruption.Stopped(interruption.stopping() or signal.SIGTERM)
                    rate = (self.examples - seen) / (time.perf_counter() - started)
                    bar.set_postfix_str(f"loss {numbers['loss']:.3f}, {rate:.0f} examples/s", refresh=False)
                    bar.update()
                except interruption.Stopped:
                    self._keep(now=True)
                    raise
        if last == self.last:
            self._give_back()

    def _begin_after(self, first: int) -> None:
        """The learning rates of step `first` + 1 in the course."""
        rates = [base * course(first) for base, course in zip(self.rates.base_lrs, self.rates.lr_lambdas, strict=True)]
        self.rates.load_state_dict(self.rates.state_dict() | {"last_epoch": first, "_last_lr": rates})
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _give_back(self) -> None:
        """The student with the trained weights, in its own dtype."""
        if self.processes.shard:
            trained = dict(self.model.named_parameters())
            for name, parameter in self.student.model.named_parameters():
                parameter.data = whole(trained[name].detach())
        self._undo()
        # parameters only: buffers, such as the frequencies of rotary embeddings, stay in float32
        for parameter in self.student.model.parameters():
            parameter.data = parameter.data.to(self.stored_dtype)

    def state(self) -> TrainingState:
        """A copy of weights, optimizer, course of the learning rate and random numbers."""
        return copy.deepcopy(self._live())

    def restore(self, state: TrainingState) -> None:
        """Go back (or forward) to `state`; the steps that follow are those that followed it."""
        self.step, self.examples, self.spent = state.step, state.examples, state.spent
        with torch.no_grad():
            for name, tensor in self._all_weights().items():
                tensor.copy_(like(tensor, state.model[name]))
        if self.teacher is not None and state.step < self.last:
            self.teacher.restore(state.teacher)
        for name, mask in state.masks.items():
            self.student.masks[name] = mask.clone()
        self._held = dict(self.student.masks)
        if state.optimizer:
            held = copy.deepcopy(state.optimizer)
            for number, parameter in enumerate(_trained(self.optimizer)):
                for name, value in held["state"].get(number, {}).items():
                    if torch.is_tensor(value) and value.shape == parameter.shape:
                        held["state"][number][name] = like(parameter, value)
            self.optimizer.load_state_dict(held)
        self.rates.load_state_dict(copy.deepcopy(state.rates))
        torch.set_rng_state(state.random)

    def _live(self) -> TrainingState:
        return TrainingState(
            step=self.step,
            examples=self.examples,
            spent=self.spent,
            model={name: whole(tensor) for name, tensor in self._all_weights().items()},
            masks=dict(self.student.masks),
            teacher=self.teacher.state() if self.teacher is not None and self.step < self.last else {},
            optimizer=_whole_state(self.optimizer) if self.step < self.last else {},
            rates=self.rates.state_dict(),
            random=torch.get_rng_state(),
        )

    def _all_weights(self) -> dict[str, torch.Tensor]:
        """Those of the model, and of what the loss learns."""
        learned = {} if self._learned is None else self._learned.state_dict()
        return _weights(self.model) | {f"{LEARNED}{name}": tensor for name, tensor in learned.items()}

    def _go_on(self) -> None:
        """From where an interrupted training was kept."""
        found = None if self.progress is None else self.progress.load()
        if found is not None and found.state.step > self.step:
            self.restore(found.state)
            self.lines, self.seconds = found.lines, found.seconds
            for numbers in self.lines:
                self.observe(numbers)  # whoever watched the interrupted training may not have seen them
        steps, squares = self.processes.sum(self.step, self.step**2)
        if steps**2 != squares * self.processes.count:
            raise ValueError(
                "the processes of this run find different progress in their caches. Give all of them one folder with "
                "runtime.cache=FOLDER."
            )

    def _keep(self, now: bool = False) -> None:
        if self.progress is not None and (now or self.step == self.last or self.progress.due(self.step)):
            seconds = self.seconds + time.perf_counter() - self._began
            kept = Kept(state=self._live(), lines=self.lines, seconds=seconds)
            if self.processes.is_first:
                self.progress.save(kept)

    def _step(self) -> dict[str, float]:
        total, count, asked = 0.0, 0.0, 0.0
        with counted(self._ledger):
            parts = list(self.batches.step(self.step - self.first, self.student))
        for number, (batch, examples) in enumerate(parts):
            batch = move(batch, self.model.device)
            # what is read only to keep in step with other processes is nobody's cost
            counting = counted(self._ledger) if examples else contextlib.nullcontext()
            with counting, self.processes.accumulating(self._module, more=number + 1 < len(parts)):
                said, taught = self._said(batch)
                with autocast(self.student.model, self.training.precision):
                    value = self.loss(batch, said, taught, self._moment(number))
                # a part of which this process has no question is read all the same, and counts for nothing
                weight = 1 if examples else 0
                self.processes.reaching(weight * value.total, self.model).backward()
            total += weight * float(value.total.detach())
            count += weight * value.count
            asked += examples
        total, count, asked, told, *spent = self.processes.sum(
            total, count, asked, interruption.stopping() is not None, *self._ledger.taken()
        )
        self.examples += round(asked)
        self.spent = self.spent.and_more(*map(round, spent))
        self._told = bool(told) and self.processes.count > 1
        # each part adds a sum, processes average; the mean is over all that counts in the step, however it was cut
        for parameter in _trained(self.optimizer):
            if parameter.grad is None:
                # of layers behind all that the loss looks at; who reads gradients finds one everywhere
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad /= count / self.processes.count
        mean = total / count
        for term in self.terms:
            extra = term(self.model)
            extra.backward()
            mean += float(extra.detach())
        for action in self.on_gradients:
            action(self.model, self.step + 1)
        self._hold(gradients=True)
        limit = self.training.max_grad_norm
        clipped = torch.nn.utils.clip_grad_norm_(_trained(self.optimizer), math.inf if limit is None else limit)
        norm = float(whole(clipped))
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise TrainingDiverged(
                f"loss={mean} and gradient norm={norm} at step {self.step + 1} of {self.steps}: training diverged. "
                f"Lower {self.key}.learning_rate ({self.training.learning_rate}), or set {self.key}.precision=float32."
            )
        rate = self.rates.get_last_lr()[0]
        self.optimizer.step()
        self.rates.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        for action in self.after_step:
            action(self.model, self.step)
        self._hold(gradients=False)
        if self.teacher is not None:
            self.teacher.after_step(self.model, self.step)
        return {
            "step": self.step - self.first,
            "loss": mean,
            "lr": rate,
            "grad_norm": norm,
            "examples": self.examples,
            "tokens": self.spent.tokens,
            "flops": self.spent.flops + self.spent.teacher_flops,
        }

    @torch.no_grad()
    def _hold(self, *, gradients: bool) -> None:
        """Keep masked weights, or their gradients, at zero; weights that a new mask takes lose their moments."""
        if not self.student.masks or self.training.lora is not None:
            return  # with adapters the masked weights are frozen, and what adapters add to them is taken out
        parameters = dict(self.model.named_parameters())
        for name, mask in self.student.masks.items():
            parameter = parameters[name]
            if not parameter.requires_grad:
                continue  # frozen: it is zero, and stays so
            held = parameter.grad if gradients else parameter.data
            if held is not None:
                held.mul_(like(held, mask))
            if not gradients and mask is not self._held.get(name):
                self._forget(parameter, mask)
                self._held[name] = mask

    def _forget(self, parameter: torch.Tensor, mask: torch.Tensor) -> None:
        """Set the moments of the weights that `mask` takes to 0."""
        if isinstance(self.optimizer, AdamW8bit):
            self.optimizer.forget(parameter, mask)
            return
        for moment in self.optimizer.state[parameter].values():
            if torch.is_tensor(moment) and moment.shape == parameter.shape:
                moment.mul_(like(moment, mask))


def _optimizer(groups: list[dict[str, Any]], training: Training) -> torch.optim.Optimizer:
    if training.optimizer == "adamw_8bit":
        return AdamW8bit(groups, lr=training.learning_rate, betas=training.betas)
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas, fused=True)


def _weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Each trained parameter and kept buffer once, by name: of tied ones the first."""
    kept: dict[str, torch.Tensor] = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    buffers = dict(model.named_buffers())
    return kept | {name: buffers[name] for name in model.state_dict() if name in buffers}


def _trained(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters in the order in which the optimizer numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Its state_dict, of which this process may hold shards; every process must ask."""
    told = optimizer.state_dict()
    state = {
        number: {name: whole(value) if torch.is_tensor(value) else value for name, value in values.items()}
        for number, values in told["state"].items()
    }
    return {"state": state, "param_groups": told["param_groups"]}


def _groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; norms and biases do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]
