"""MiniLLM: reverse KL by policy gradient (Gu et al. 2023, arXiv 2306.08543, section 2.2).

For texts y that student q and teacher p wrote together, y_t ~ m = alpha p + (1 - alpha) q,

    r_t  = log p(y_t) - log q(y_t)                   clipped
    w_t  = q(y_t) / m(y_t)                           importance weight
    R_t' = sum over s > t of gamma^(s-t) r_s         divided by the sum of gamma^(s-t) with length_norm
    grad = - sum over t of w_t R_t' grad log q(y_t)  +  sum over t of w_t grad KL(q_t || p_t)

where q_t, p_t are the distributions over the vocabulary at t. Without single_step there is no second sum, and r_t of
the token itself enters R_t' at weight 1: with gamma = 0 plain on-policy distillation by policy gradient.

The paper has gamma = 1. Its code (microsoft/LMOps) differs: there R holds r_t besides the single step, the advantages
are whitened, w_t is clipped as in PPO and does not weigh the single step. None of this is done here: as each text is
used once, q is what drew it. The paper's language-modelling term on a pre-training corpus is left out: there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.config.ranges import require
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads

if TYPE_CHECKING:
    import torch

RATIO = 80.0
"""Largest log p / q that float32 holds the exponential of."""


@dataclass(frozen=True, kw_only=True)
class MiniLLM(Loss):
    """Reverse KL of whole texts to the teacher, on texts that student and teacher write together.

    Its value is what its gradient is taken of, by token: it is an estimate of the reverse KL that is still to come.
    """

    alpha: float = 0.2
    """The teacher's share in what wrote the texts, in [0, 1): that of the batches."""
    gamma: float = 1.0
    """Discount of rewards of later tokens, in [0, 1]."""
    length_norm: bool = True
    """Whether what is still to come is a mean over the tokens to come, so that long texts are not shunned."""
    single_step: bool = True
    """Whether the reward of the token itself is taken exactly, over the whole vocabulary, and not as it was drawn."""
    reward_clip: float | None = 100.0
    """Bound of a reward's size; null bounds nothing."""

    def __post_init__(self) -> None:
        require(0 <= self.alpha < 1, "alpha", self.alpha, "in [0, 1)")
        require(0 <= self.gamma <= 1, "gamma", self.gamma, "in [0, 1]")
        bounded = self.reward_clip is None or self.reward_clip > 0
        require(bounded, "reward_clip", self.reward_clip, "null or above 0")

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset({"teacher_logits"})

    @property
    def reads(self) -> Reads:
        return "choices"

    @property
    def positions(self) -> Positions:
        return "answer"

    @property
    def rests(self) -> bool:
        return True

    @property
    def drawn_with(self) -> float | None:
        return self.alpha

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        import torch

        from regraft.distillation.losses.divergence import reverse_kl
        from regraft.distillation.vocabulary import summed

        assert teacher is not None
        with torch.no_grad():
            log_q, log_p = _chosen(student, batch), _chosen(teacher, batch)
            reward = log_p - log_q
            if self.reward_clip is not None:
                reward = reward.clamp(-self.reward_clip, self.reward_clip)
            # q / m = 1 / (alpha p / q + 1 - alpha), p / q bounded since 0 times infinity is no number
            weight = 1 / (self.alpha * (log_p - log_q).clamp(max=RATIO).exp() + 1 - self.alpha)
            to_come = self._to_come(reward, batch.token_option)

        def apart(z: torch.Tensor, part: slice) -> torch.Tensor:
            log_q = torch.log_softmax(z, dim=-1)
            chosen = log_q.gather(1, batch.token_id[part, None]).squeeze(1)
            # 1, with the gradient of log q
            value = -to_come[part] * (chosen - chosen.detach()).exp()
            if self.single_step:
                value = value + reverse_kl(z, teacher.logits_at(batch.token_read[part]))
            return weight[part] * value

        return LossValue(total=summed(student, apart, batch.token_read), count=len(batch.token_id))

    def _to_come(self, reward: torch.Tensor, option: torch.Tensor) -> torch.Tensor:
        """(tokens,): what is to come from each token on, of rewards (tokens,) of texts numbered by `option`."""
        rewards, texts = reward.tolist(), option.tolist()
        result = [0.0] * len(rewards)
        total = share = 0.0
        for at in reversed(range(len(rewards))):
            ends = at + 1 == len(rewards) or texts[at + 1] != texts[at]
            total, share = (0.0, 0.0) if ends else (self.gamma * total, self.gamma * share)
            later, later_share = total, share
            total, share = total + rewards[at], share + 1.0
            wanted, over = (later, later_share) if self.single_step else (total, share)
            result[at] = wanted / over if self.length_norm and over > 0 else wanted
        return reward.new_tensor(result)


def _chosen(outputs: ModelOutputs, batch: Batch) -> torch.Tensor:
    """(tokens,): the log-likelihood of each written token."""
    import torch

    from regraft.models.likelihood import at_once

    parts = []
    size = at_once(outputs)
    for start in range(0, len(batch.token_id), size):
        part = slice(start, start + size)
        log_p = torch.log_softmax(outputs.logits_at(batch.token_read[part]).float(), dim=-1)
        parts.append(log_p.gather(1, batch.token_id[part, None]).squeeze(1))
    return torch.cat(parts)
