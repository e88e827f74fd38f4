"""AMC: a reinforcement-learning agent shares out what is pruned (He et al. 2018, arXiv 1802.03494).

    An episode walks the layers. In state s_t the actor names the sparsity a_t of layer t, which is then bounded so
    that the budget can still be met whatever follows (the paper's algorithm 1; here on both sides, so the total is
    met to the unit). After the last layer the reward R = - loss / loss of the even candidate goes to every transition.

    critic:      minimise (y - Q(s_t, a_t))^2,   y = R - b + gamma * Q'(s_t+1, mu'(s_t+1)),   gamma = 1,
                 b a moving average of past rewards, and no second part after the last layer
    actor:       maximise Q(s_t, mu(s_t))
    targets:     Q' and mu' follow Q and mu:  w' <- tau * w + (1 - tau) * w'
    exploration: a ~ truncated normal(mu(s), sigma^2) in [0, 1]; uniform while warming up, then sigma decays

The state, each number in [0, 1]: which layer (one of L numbers is 1), its units, the weights of its matrices, the
share of all units that is gone already, the share that lies in the layers ahead, the share that is still to go, and
a_t-1. The paper's, but for a convolution's kernel and stride, with FLOPs in units of the structure, and with a number
for each layer in place of one for all: the layers of a convolutional network differ in shape, those of a language
model only in their place, and what each can spare is no smooth function of it.
"""

from __future__ import annotations

import copy
import math
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft.config.ranges import require
from regraft.pruning.allocation.search import Problem, Searched

if TYPE_CHECKING:
    import torch

FEATURES = 6
"""Numbers in a state besides those that name the layer."""
WORST = -100.0
"""The lowest reward: a loss a hundred times that of the even candidate, or none that is a number."""


@dataclass(frozen=True, kw_only=True)
class Amc(Searched):
    """An actor learns by trial how much each layer can spare."""

    uses_seed = True

    hidden: int = 64
    """Width of the two hidden layers of actor and critic; 300 in the paper."""
    warmup: float = 0.25
    """Share of the evaluations whose actions are drawn uniformly."""
    sigma: float = 0.5
    """Deviation of the exploration when the warm-up ends."""
    decay: float = 0.97
    """Factor of sigma from one episode to the next; 0.95 in the authors' code."""
    actor_learning_rate: float = 3e-4
    """Adam's, of the actor; 1e-4 in the authors' code, which learns from thousands of decisions."""
    critic_learning_rate: float = 3e-3
    """Adam's, of the critic; 1e-3 there."""
    tau: float = 0.02
    """How fast the targets follow; 0.01 there."""
    batch_size: int = 32
    """Transitions of an update; 64 there."""
    memory: int = 2000
    """Transitions that are remembered."""
    updates: int = 4
    """Updates of actor and critic for each decision, from the end of the warm-up; 1 there."""
    baseline: float = 0.5
    """Weight of the newest reward in the moving average."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hidden", "batch_size", "memory", "updates"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("warmup", "decay", "tau", "baseline"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number in [0, 1]")
        for name in ("sigma", "actor_learning_rate", "critic_learning_rate"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")

    def search(self, problem: Problem, draw: random.Random) -> None:
        import torch

        even = problem.loss(problem.even)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.randrange(2**31))
            agent = Agent(self, len(problem.blocks) + FEATURES, draw)
            warm = round(self.warmup * self.evaluations)
            # an episode that repeats another measures nothing: episodes are counted as well
            for episode in range(self.evaluations):
                if problem.is_spent:
                    return
                sigma = None if episode < warm else self.sigma * self.decay ** (episode - warm)
                walked = walk(problem, agent, sigma)
                reward = rewarded(problem.loss([lost for _, _, lost in walked]), even)
                agent.remember([(state, action) for state, action, _ in walked], reward)
                if sigma is not None:
                    for _ in range(self.updates * len(walked)):
                        agent.learn()


def rewarded(loss: float, even: float) -> float:
    """R of an episode, at least `WORST`: a loss beyond all numbers must not teach the networks infinity."""
    return max(-loss / even, WORST) if math.isfinite(loss) else WORST


def walk(problem: Problem, agent: Agent, sigma: float | None) -> list[tuple[list[float], float, int]]:
    """State, action and losses of each layer, first to last; the losses sum to the total.

    The action is what the actor said, as in the authors' code, and the losses what the bounds made of it: so the critic
    learns that beyond its bounds an action changes nothing, where it would else dream of what it never saw.

    Args:
        problem: The layers.
        agent: Who decides.
        sigma: Deviation of the exploration; None draws uniformly.
    """
    room, owned = problem.room, problem.weights
    everything = sum(room.units)
    walked: list[tuple[list[float], float, int]] = []
    gone, before = 0, 0.0
    for layer, units in enumerate(room.units):
        ahead = slice(layer + 1, None)
        state = [
            *(float(layer == other) for other in range(len(room.units))),
            units / max(room.units),
            owned[layer] / max(owned),
            gone / everything,
            sum(room.units[ahead]) / everything,
            (room.total - gone) / everything,
            before,
        ]
        lowest = max(room.least[layer], room.total - gone - sum(room.most[ahead]))
        highest = min(room.most[layer], room.total - gone - sum(room.least[ahead]))
        action = agent.action(state, sigma)
        lost = min(max(round(action * units), lowest), highest)
        gone, before = gone + lost, lost / units
        walked.append((state, action, lost))
    assert gone == room.total, "each layer left enough for those ahead"
    return walked


class Agent:
    """Actor and critic with their targets, and what they remember (DDPG, Lillicrap et al. 2015, arXiv 1509.02971).

    Args:
        settings: Of the search.
        state: Numbers in a state.
        draw: Which memories are learned from.
    """

    def __init__(self, settings: Amc, state: int, draw: random.Random) -> None:
        import torch
        from torch import nn

        def network(inputs: int, *last: nn.Module) -> nn.Sequential:
            width = settings.hidden
            hidden = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)]
            return nn.Sequential(*hidden, *last)

        self.settings, self.draw = settings, draw
        self.actor, self.critic = network(state, nn.Sigmoid()), network(state + 1)
        self.targets = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.optimizers = (
            torch.optim.Adam(self.actor.parameters(), lr=settings.actor_learning_rate),
            torch.optim.Adam(self.critic.parameters(), lr=settings.critic_learning_rate),
        )
        self.memory: deque[tuple[list[float], list[float], float, float, bool]] = deque(maxlen=settings.memory)
        self.average: float | None = None

    def action(self, state: list[float], sigma: float | None) -> float:
        """A sparsity in [0, 1]."""
        import torch

        if sigma is None:
            return float(torch.rand(()))
        with torch.no_grad():
            mean = float(self.actor(torch.tensor(state)))
        return truncated_normal(mean, sigma, float(torch.rand((), dtype=torch.float64)))

    def remember(self, walked: list[tuple[list[float], float]], reward: float) -> None:
        """Keep an episode's transitions, each with the reward of its end."""
        weight = self.settings.baseline
        self.average = reward if self.average is None else weight * reward + (1 - weight) * self.average
        for number, (state, action) in enumerate(walked):
            last = number + 1 == len(walked)
            after = state if last else walked[number + 1][0]
            self.memory.append((state, after, action, reward, last))

    def learn(self) -> None:
        """One update of critic and actor."""
        import torch
        from torch.nn.functional import mse_loss

        chosen = self.draw.sample(list(self.memory), min(self.settings.batch_size, len(self.memory)))
        columns: list[Any] = [torch.tensor(column, dtype=torch.float32) for column in zip(*chosen, strict=True)]
        state, after, action, reward, last = columns
        actor, critic = self.targets
        with torch.no_grad():
            ahead = critic(torch.cat([after, actor(after)], dim=1)).squeeze(1)
            wanted = reward - self.average + (1 - last) * ahead
        with torch.enable_grad():
            said = self.critic(torch.cat([state, action[:, None]], dim=1)).squeeze(1)
            self._step(1, mse_loss(said, wanted))
            self._step(0, -self.critic(torch.cat([state, self.actor(state)], dim=1)).mean())
        with torch.no_grad():
            for network, target in zip((self.actor, self.critic), self.targets, strict=True):
                for new, old in zip(network.parameters(), target.parameters(), strict=True):
                    old.lerp_(new, self.settings.tau)

    def _step(self, which: int, loss: torch.Tensor) -> None:
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()


def truncated_normal(mean: float, sigma: float, uniform: float) -> float:
    """The quantile `uniform` of a normal distribution that is cut to [0, 1]."""
    from statistics import NormalDist

    normal = NormalDist(mean, sigma)
    low, high = normal.cdf(0.0), normal.cdf(1.0)
    quantile = low + uniform * (high - low)
    return min(max(normal.inv_cdf(min(max(quantile, 1e-12), 1 - 1e-12)), 0.0), 1.0)
