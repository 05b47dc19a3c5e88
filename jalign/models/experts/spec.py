"""The sizes and switches of the mixture of experts in a decoder's layers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Experts:
    """Every layer's MLP is `count` experts, of which each token uses `top_k`.

    y = scale * sum over the top_k of p_e E_e(x) (+ the shared expert), with p the softmax of the
    router's logits over all experts (Shazeer et al. 2017, https://arxiv.org/abs/1701.06538).

    Attributes:
      count, top_k, width: E, k and F, the width inside an expert.
      normalize: the k probabilities are divided by their sum, which is the softmax of the k largest
        logits (Mixtral, Qwen 3, GPT-OSS); otherwise they add up to less than 1 (OLMoE, Qwen 2).
      bias: experts and router have biases (GPT-OSS).
      shared_width: the width inside an MLP that every token passes too (Qwen 2); None: there is
        none. Its output is multiplied by the sigmoid of a linear gate.
      swiglu_limit: GPT-OSS's activation: (min(max(u, -limit), limit) + 1) * g * sigmoid(alpha * g)
        with g = min(gate x, limit), u = up x; None: that of the decoder.
      swiglu_alpha: alpha there.
      balance_coef: weight of the load-balancing loss in the model's own training
        (router_aux_loss_coef).
    """

    count: int
    top_k: int
    width: int
    normalize: bool = False
    bias: bool = False
    shared_width: int | None = None
    swiglu_limit: float | None = None
    swiglu_alpha: float = 1.702
    balance_coef: float = 0.0

    def __post_init__(self):
        for name in ("count", "top_k", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"experts.{name} must be at least 1, got {getattr(self, name)}")
        if self.top_k > self.count:
            raise ValueError(f"a token cannot use {self.top_k} of {self.count} experts")
