"""Default learning rates: the usual ones for AdamW and the kind of run."""

from jalign.core import Algorithm

BY_KIND = {"demonstrations": 2e-5, "a reward model": 1e-5, "preferences": 1e-6, "samples": 1e-6}
"""Peak rates of full fine-tuning. Those of demonstrations (SFT, distillation), preferences (pairs,
lists, labels) and samples (online) are the defaults of TRL 1.16's SFTConfig, DPOConfig and
GRPOConfig. That of reward models is Llama 2's for its smaller ones (arXiv 2307.09288, section
3.2.2); RewardConfig's 1e-4 is ours for adapters.
"""

ADAPTERS = 10
"""Factor where only low-rank adapters are trained (Schulman et al., LoRA Without
Regret, 2025; TRL's page on PEFT)."""


def usual(row: Algorithm, *, adapters: bool) -> tuple[float, str]:
    """The rate, and the kind of run in words.

    >>> from jalign.algorithms import get
    >>> usual(get("sft"), adapters=True)
    (0.0002, 'adapters on demonstrations')
    """
    if row.format.feedback == "none":
        kind = "demonstrations"
    # before experience: no reward model samples, and its rate is its own
    elif row.needs_value_head:
        kind = "a reward model"
    else:
        kind = "samples" if row.experience else "preferences"
    rate = BY_KIND[kind]
    if not adapters:
        return rate, kind
    # the same factor for every kind of run
    return rate * ADAPTERS, f"adapters on {kind}"
