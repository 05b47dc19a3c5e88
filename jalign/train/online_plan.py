"""The numbers of an online run."""

from __future__ import annotations

from dataclasses import dataclass

from jalign.core import Algorithm
from jalign.train import rollout


@dataclass(frozen=True)
class Plan:
    """The numbers of an online run.

    Attributes:
      batch_size: prompts per optimizer step.
      prompts: prompts per rollout, a multiple of batch_size.
      epochs: passes over a rollout.
      responses: K.
      response_len: most tokens of a response.
      max_tokens: most tokens of a micro-batch on one device.
      multiple: row lengths and token budgets are multiples of it.
      temperature: of sampling, and of the log-probs of training.
      kl_target: nats per response that kl_coef is steered to; 0 leaves it as it is.
      kl_horizon: responses over which it is steered (https://arxiv.org/abs/1909.08593).
      importance_cap: where the sampler's log-probs differ from the trainer's, a token counts
        min(exp(difference), cap) times, and for a loss of whole responses a response
        min(exp(sum of differences), cap) times; 0: they are not looked at.
      attempts: rollouts that may be sampled to fill one whose groups are left out.
      mask_truncated: the loss leaves out responses that did not end by themselves; where it
        weighs samples against each other they still count in the means and deviations of others.
      max_new_tokens: most tokens of a sampled response; 0: response_len, which is more where
        responses or texts of the data stand beside the samples.
      ref_sync_steps, ref_mixup_alpha: how the reference moves.
      run_steps: optimizer steps of the run; 0: nobody knows.
      max_idle: rollouts in a row that teach nothing before the run ends; 0: any number.
    """

    batch_size: int
    prompts: int
    epochs: int
    responses: int
    response_len: int
    max_tokens: int
    multiple: int = 64
    temperature: float = 1.0
    kl_target: float = 0.0
    kl_horizon: int = 10_000
    importance_cap: float = 0.0
    attempts: int = 1
    mask_truncated: bool = False
    max_new_tokens: int = 0
    ref_sync_steps: int = 0
    ref_mixup_alpha: float = 1.0
    run_steps: int = 0
    max_idle: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps per rollout."""
        return self.epochs * self.prompts // self.batch_size

    def asked_of_models(self, algorithm: Algorithm) -> tuple[str, ...]:
        """What has to be read from the run's models about responses before it learns from them."""
        names = set(algorithm.rollout_inputs()) & set(rollout.FROM_MODELS)
        if self.steps > 1 or self.importance_cap or "ref_token_logps" in names:
            names.add("old_token_logps")
        return tuple(sorted(names))

    def describe(self, algorithm: Algorithm) -> list[str]:
        """The rollouts in words, and what to know of them."""
        longest = self.max_new_tokens or self.response_len
        lines = [
            f"{self.prompts} prompts x {self.responses} responses of at most {longest} "
            f"tokens per rollout, {self.steps} optimizer steps each"
        ]
        if self.steps > 1 and algorithm.needs_fresh_samples:
            lines.append(
                f"warning: {algorithm.name} takes samples as those of the weights it trains, which "
                "is so in the first step of a rollout only: nothing corrects the others"
            )
        if 0 < self.run_steps < self.steps:
            number = "rollout.prompts"
            if algorithm.experience and algorithm.experience.iterative:
                number = "ref_sync_steps"
            lines.append(
                f"warning: the run has {self.run_steps} steps and its first rollout is sampled for "
                f"{self.steps}: the rest is never learnt from; set a smaller {number}"
            )
        return lines + self._describe_iteration(algorithm)

    def _describe_iteration(self, algorithm: Algorithm) -> list[str]:
        """A warning where samples that should be the reference's are of another policy."""
        if algorithm.experience is None or not algorithm.experience.iterative:
            return []
        every, alpha = self.ref_sync_steps, self.ref_mixup_alpha
        if self.steps == every and alpha == 1:
            return []
        lead = f"warning: {algorithm.name} learns from samples of its reference, but "
        if not every:
            why = "the reference stays the first policy (ref_sync_steps: 0)"
        elif self.steps != every:
            why = (
                f"a rollout has {self.steps} optimizer steps and the reference moves every "
                f"{every}: set ref_sync_steps to {self.steps}"
            )
            if every % self.epochs == 0:
                why += f", or rollout.prompts to {every // self.epochs * self.batch_size}"
        else:
            why = f"the reference is a mixture of policies (ref_mixup_alpha: {alpha:g})"
        return [lead + why]
