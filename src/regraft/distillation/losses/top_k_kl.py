"""Forward KL over the teacher's k most likely tokens.

With the remainder, K the top k, r = 1 - sum_{v in K}:

    L = T^2 * mean over positions of  sum_{v in K} p_v log(p_v / q_v) + r_p log(r_p / r_q),
    p = softmax(z_teacher / T),   q = softmax(z_student / T)

which is KL between the two after all other tokens are taken together, at most KL(p || q). Renormalised, both softmaxes
are over K alone: what the student puts elsewhere is free, and the gradient is biased (Sparse Logit Sampling,
arXiv 2503.16870). What the teacher says of a token outside of K is lost in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regraft.config.ranges import require
from regraft.distillation.losses.next_token import NextToken
from regraft.interfaces import Moment

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class TopKKL(NextToken):
    """Match the head of the teacher's next-token distribution."""

    k: int = 64
    """Tokens of each position; a whole vocabulary is forward KL."""
    rest: Literal["bucket", "renormalised"] = "bucket"
    """The other tokens: `bucket`, all of them count as one; `renormalised`, they are left out and the top k made to sum
    to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.k >= 1, "k", self.k, "at least 1")
        alone = self.k == 1 and self.rest == "renormalised"
        require(not alone, "k", self.k, "at least 2 with rest=renormalised", "One token alone is always certain.")

    def between(self, student: torch.Tensor, teacher: torch.Tensor, moment: Moment) -> torch.Tensor:
        import torch

        from regraft.distillation.losses.divergence import forward_kl, kl, log_probabilities

        if self.k >= student.shape[1]:
            return forward_kl(student, teacher, self.temperature)
        top = teacher.float().topk(self.k, dim=1)
        if self.rest == "renormalised":
            return forward_kl(student.gather(1, top.indices), top.values, self.temperature)

        def bucketed(logits: torch.Tensor) -> torch.Tensor:
            """(n, vocab) -> (n, k + 1): log-probabilities of the top k, and of all others together."""
            log = log_probabilities(logits, self.temperature)
            others = log.scatter(1, top.indices, -torch.inf).logsumexp(dim=1, keepdim=True)
            return torch.cat([log.gather(1, top.indices), others], dim=1)

        return kl(bucketed(teacher), bucketed(student))
