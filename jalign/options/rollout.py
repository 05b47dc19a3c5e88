"""How responses are sampled from the policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from string import Formatter
from typing import Literal

from jalign.train.rollout_spec import RolloutRules


@dataclass(frozen=True, kw_only=True)
class RolloutConfig(RolloutRules):
    """How responses are sampled from the policy, and how often they are learned from.

    Args:
        prompts: prompts per rollout, a multiple of batch_size; 0: batch_size, or, for methods that
          learn from samples of the policy of the last iteration (sppo_samples, dno_prct,
          rebel, spin_online, inpo, comal, omwu), the prompts of an iteration (ref_sync_steps or
          last_sync_steps optimizer steps).
        responses: responses per prompt; 0: the number usual for the method.
        max_new_tokens: most tokens of a response, which dr_grpo divides by.
        top_k: keep the most probable tokens only; 0: all. The log-probs of training ignore the cut.
        top_p: keep the smallest set of tokens with this probability.
        stop: texts that end a response and are part of it.
        sample_batch: prompts that are sampled together; 0: rollout.prompts, or batch_size.
        rows: responses that are sampled at once; a row that ends takes the next prompt (continuous
          batching), for many responses of uneven length. 0: all are sampled together and wait for
          the longest.
        weights: of the policy while it samples: sharded as in training, so that every token gathers
          what mesh.fsdp and mesh.context split; or gathered once per rollout into a copy, in the
          compute type and split over mesh.tensor only (experts also over mesh.expert), if a device
          has room for it.
        batch_invariant: the policy computes the same bits whatever the batch, so that the sampler's
          log-probs equal the trainer's and importance ratios of the first epoch are 1. Slower.
        replay_router: training sends each response token of a mixture of experts where the sampler
          sent it (R3, https://arxiv.org/abs/2510.11370); prompts and the reference have their
          router's choice.
        mixture: weight of the reference in policy^(1 - mixture) * reference^mixture, for methods
          that sample from it.
        teacher_prompt: what the teacher of a self-distillation reads in place of the prompt: a text
          with {prompt} and a column of the data in braces; not given: the method's own words.
        record: write every rollout to the run's folder (`jalign rollouts`).
    """

    prompts: int = 0
    responses: int = 0
    max_new_tokens: int = 64
    top_k: int = 0
    top_p: float = 1.0
    stop: list[str] = field(default_factory=list)
    sample_batch: int = 0
    rows: int = 0
    # sharded by default: a gathered copy needs room for the model on every device
    weights: Literal["sharded", "gathered"] = "sharded"
    batch_invariant: bool = False
    replay_router: bool = False
    mixture: float = 0.5
    teacher_prompt: str = ""
    record: bool = False

    def __post_init__(self):
        # RolloutRules' fields too: they come from the same section of a config
        least = {
            "prompts": 0, "responses": 0, "epochs": 1, "max_new_tokens": 1, "top_k": 0,
            "sample_batch": 0, "rows": 0, "kl_target": 0, "kl_horizon": 1, "importance_cap": 0,
            "attempts": 1, "max_idle": 0,
        }  # fmt: skip
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"rollout.{name} must be >= {smallest}, got {getattr(self, name)}")
        if self.teacher_prompt:
            column_of(self.teacher_prompt)
        # every text contains the empty one, so each response would end at once
        if "" in self.stop:
            raise ValueError("rollout.stop: stop strings must not be empty")
        # greedy responses to a prompt are equal, and log-probs divide logits by the temperature
        if self.temperature <= 0:
            raise ValueError(f"rollout.temperature must be > 0, got {self.temperature}")
        for name in ("top_p", "mixture"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"rollout.{name} must be in (0, 1], got {getattr(self, name)}")


def column_of(teacher_prompt: str) -> str:
    """The column of the data that a teacher's prompt names beside `{prompt}`.

    Raises:
      ValueError: not exactly these two names in braces.

    >>> column_of("{prompt} Hint: {hint}")
    'hint'
    """
    try:
        # positional and repeated fields have names too, "" and "0"
        names = {name for _, name, _, _ in Formatter().parse(teacher_prompt) if name is not None}
    except ValueError as error:
        raise ValueError(f"rollout.teacher_prompt: {error} (braces are doubled: {{{{)") from None
    if "prompt" not in names or len(names) != 2 or not all(n.isidentifier() for n in names):
        given = ", ".join(f"{{{name}}}" for name in sorted(names)) or "none"
        raise ValueError(
            "rollout.teacher_prompt needs {prompt} and one column of the data in braces, such as "
            f"{{demonstration}}; it has {given}"
        )
    return (names - {"prompt"}).pop()
