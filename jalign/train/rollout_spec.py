"""The size of a rollout, and the rules for learning from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from jalign.core import Algorithm

FROM_MODELS = ("old_token_logps", "ref_token_logps", "values", "old_log_sum_p_squared")
"""Arrays of a rollout that the models of the run compute."""


@dataclass(frozen=True, kw_only=True)
class RolloutRules:
    """What a run's options and `RolloutSpec` share.

    Args:
        epochs: passes over a rollout.
        temperature: of sampling, and of the log-probs of training where a method follows the
          gradient of what is sampled; preferences and best responses are learned at 1.
        kl_target: nats per response to which kl_coef is steered
          (https://arxiv.org/abs/1909.08593); 0 leaves it as it is.
        kl_horizon: responses over which it is steered.
        importance_cap: where sampler and trainer give a token different log-probs its advantage is
          multiplied by min(exp(difference), importance_cap), for a loss of whole responses by that
          of the sum of differences; KL terms and the critic's loss stay as they are. 0: they are
          not compared. `corrections` with tis multiplies the loss by the same ratio.
        corrections: name -> bound, of `jalign.losses.CORRECTIONS`: the loss is multiplied with
          weights of the ratio p of the trainer / p of the sampler. tis: min(ratio, bound); mis: the
          ratio, 0 outside of 1 / bound to bound; sequence_tis: tis of the product over a response;
          geometric, k3: responses are left out whose mean ratio is outside of 1 / bound to bound,
          or whose KL is above the bound; opsm: bad responses that the policy has left by more than
          the bound, nats per token. Several are multiplied.
        attempts: rollouts that may be sampled to fill one where a method leaves groups out; each
          has prompts of its own, which are skipped where they are not needed.
        mask_truncated: the loss leaves out responses that did not end by themselves. Where samples
          are weighed against each other their rewards still count in the mean and deviation of the
          others (as in DAPO and TRL); where responses are selected (the best, chosen and rejected)
          they are never among them.
        max_idle: consecutive rollouts that teach nothing, since no response has a reward or the
          rewards of the responses to every prompt are all equal, after which the run ends with
          exit code 6; three where rewards fail for all responses, and one if it is the first of
          the run. 0: the run continues in any case.
    """

    epochs: int = 1
    temperature: float = 1.0
    kl_target: float = 0.0
    kl_horizon: int = 10_000
    importance_cap: float = 0.0
    corrections: Mapping[str, float] = field(default_factory=dict)
    attempts: int = 1
    mask_truncated: bool = False
    max_idle: int = 20

    def rules(self) -> dict[str, Any]:
        """The fields of this class, for `RolloutSpec(**options.rollout.rules(), ..)`."""
        return {f.name: getattr(self, f.name) for f in fields(RolloutRules)}


@dataclass(frozen=True, kw_only=True)
class RolloutSpec(RolloutRules):
    """A rollout of a run: `RolloutRules`, and what follows from the method and the data.

    Attributes:
      batch_size: prompts per optimizer step.
      prompts: prompts per rollout, a multiple of batch_size.
      responses: K.
      response_len: R, most tokens of a response.
      max_tokens: most tokens of a micro-batch on one device.
      multiple: row lengths and token budgets are multiples of it.
      max_new_tokens: most tokens of a sampled response; 0: response_len, which is larger where
        responses or texts of the data are packed beside the samples.
      ref_sync_steps, ref_mixup_alpha: how the policy of the last iteration moves
        (`Algorithm.iteration`).
      run_steps: optimizer steps of the run; 0: unknown.
    """

    batch_size: int
    prompts: int
    responses: int
    response_len: int
    max_tokens: int
    multiple: int = 64
    max_new_tokens: int = 0
    ref_sync_steps: int = 0
    ref_mixup_alpha: float = 1.0
    run_steps: int = 0
    max_idle: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps per rollout."""
        return self.epochs * self.prompts // self.batch_size

    def model_arrays(self, algorithm: Algorithm) -> tuple[str, ...]:
        """Which of `FROM_MODELS` are computed before the run learns from a rollout."""
        names = set(algorithm.rollout_inputs()) & set(FROM_MODELS)
        # Several steps per rollout need the ratio to the policy that sampled, as the trainer
        # computes it: the sampler rounds differently, and a ratio to its log-probs starts off 1.
        compared = {"ref_token_logps", "teacher_token_logps"} & set(algorithm.rollout_inputs())
        corrected = self.importance_cap or self.corrections
        if self.steps > 1 or corrected or compared:
            names.add("old_token_logps")
        return tuple(sorted(names))

    def measured_in_step(self, algorithm: Algorithm, arrays: Iterable[str]) -> bool:
        """Whether the step itself logs `rollout/kl_to_trainer`: the log-probs of a rollout are not
        computed apart, and those of the step are at the temperature of sampling.
        """
        at_temperature = algorithm.policy_gradient or self.temperature == 1
        return "old_token_logps" not in arrays and at_temperature

    def describe(self, algorithm: Algorithm) -> list[str]:
        """The rollouts in one line, and warnings about them."""
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
                number = algorithm.iteration[0]
            lines.append(
                f"warning: the run has {self.run_steps} steps and its first rollout is sampled for "
                f"{self.steps}: the rest is never learned from; set a smaller {number}"
            )
        return lines + self._describe_iteration(algorithm)

    def _describe_iteration(self, algorithm: Algorithm) -> list[str]:
        """A warning if samples that should come from the reference come from another policy."""
        if algorithm.experience is None or not algorithm.experience.iterative:
            return []
        every, alpha = self.ref_sync_steps, self.ref_mixup_alpha
        if self.steps == every and alpha == 1:
            return []
        name = algorithm.iteration[0]
        whose, model = "its reference", "the reference"
        if name != "ref_sync_steps":
            whose = model = "the policy of the last iteration"
        lead = f"warning: {algorithm.name} learns from samples of {whose}, but "
        if not every:
            why = f"{model} stays the first policy ({name}: 0)"
        elif self.steps != every:
            why = (
                f"a rollout has {self.steps} optimizer steps and {model} moves every "
                f"{every}: set {name} to {self.steps}"
            )
            if every % self.epochs == 0:
                why += f", or rollout.prompts to {every // self.epochs * self.batch_size}"
        else:
            alpha_name = name.replace("sync_steps", "mixup_alpha")
            why = f"{model} is a mixture of policies ({alpha_name}: {alpha:g})"
        return [lead + why]
