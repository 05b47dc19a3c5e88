"""The source of an online algorithm: sample from the policy, judge, and make batches of it.

A rollout answers `prompts` prompts with K responses each and feeds `epochs` passes of optimizer
steps of `batch_size` prompts. Which prompts, which random numbers and which order follow from the
number of the rollout alone, and the examples of a rollout under way are part of what a checkpoint
keeps: a run that goes on is the run that never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jalign import store
from jalign.advantages import adaptive_kl, importance_weights
from jalign.core import Algorithm, Frozen, Parts, TrainState, mean_over_examples
from jalign.data.collate import Field
from jalign.data.examples import Examples
from jalign.rollout.groups import Responses
from jalign.train import rollout, rollout_file
from jalign.train.objective import Apply
from jalign.train.online_metrics import (
    LOGPS,
    critic_metrics,
    length_metrics,
    logp_metrics,
    means_of,
    score_metrics,
)
from jalign.train.pretraining import Pretraining
from jalign.train.step import with_reference

Sampler = Callable[[TrainState, Frozen, Sequence[int], jax.Array], Responses]
"""(state, frozen, numbers of prompts, key) -> K responses to each."""

Judge = Callable[[Sequence[int], Responses], rollout.Judged]
"""(numbers of prompts, their responses) -> what rewards say of them."""

Keeper = Callable[[tuple[int, int], Sequence[int], Responses, Mapping[str, np.ndarray]], None]
"""Told of all that is sampled: ((rollout, attempt), numbers of prompts, responses, arrays)."""


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
      mask_truncated: leave out responses that did not end by themselves.
      max_new_tokens: most tokens of a sampled response; 0: response_len, which is more where
        responses or texts of the data stand beside the samples.
      ref_sync_steps, ref_mixup_alpha: how the reference moves.
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


class Online:
    """`source(state, frozen)` gives the data of the next step, sampling when a rollout begins.

    Args:
      algorithm: a row with an experience.
      hyper: its hyper-parameters that are set.
      prompts: the prompts, as examples without responses.
      sampler, judge: see their types. greedy: the sampler of the most probable response, for
        algorithms that compare with it.
      apply: the model as a pure function.
      plan: numbers.
      mesh: over all devices.
      seed: of prompts, samples and order.
      keep: told of every rollout.
      pretraining: texts that stand beside the samples of each step.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        hyper: Mapping[str, Any],
        prompts: Examples,
        sampler: Sampler,
        judge: Judge,
        apply: Apply,
        plan: Plan,
        mesh: Mesh,
        *,
        seed: int,
        greedy: Sampler | None = None,
        keep: Keeper | None = None,
        pretraining: Pretraining | None = None,
    ):
        assert algorithm.experience is not None
        self.algorithm, self.plan, self.seed = algorithm, plan, seed
        self.make = algorithm.experience.make
        self.numbers = algorithm.experience_numbers(**hyper)
        self.prompts, self.sampler, self.judge, self.keep = prompts, sampler, judge, keep
        self.greedy, self.pretraining = greedy, pretraining
        self._order: Any = (
            grain.MapDataset.source(range(len(prompts))).seed(seed).shuffle().repeat()
        )
        longest = int(prompts.lengths().prompt_len.max())
        self.bins = rollout.Bins(
            mesh,
            max(longest, pretraining.prompt_len) if pretraining else longest,
            plan.response_len,
            plan.max_tokens,
            plan.multiple,
        )
        self.reader = rollout.Reader(apply, plan.temperature, self.bins)
        self.step = self.tokens = 0
        self.kl_coef = self.numbers.get("kl_coef")
        self.recent: list[dict[str, float]] = []
        self._examples: Examples | None = None  # of the rollout under way

    @property
    def begins(self) -> bool:
        """Whether the next step needs a new rollout."""
        return self.step % self.plan.steps == 0

    def __call__(self, state: TrainState, frozen: Frozen) -> tuple[Parts, ...]:
        at = self.step % self.plan.steps
        if at == 0:
            self._examples = self._roll_out(self.step // self.plan.steps, state, frozen)
        assert self._examples is not None
        numbers = self._minibatch(at)
        lengths = self._examples.lengths()
        rows = lengths.prompt_len[:, None] * (lengths.response_lens > 0) + lengths.response_lens
        self.tokens += int(rows[numbers].sum())
        parts = self._on_device(self._examples, numbers)
        self.step += 1
        return parts

    # ---- what a checkpoint keeps

    def position(self) -> dict[str, Any]:
        """Facts for a checkpoint; `save` writes the examples of the rollout under way."""
        return {
            "num_tokens": self.tokens,
            "kl_coef": self.kl_coef,
            "recent": self.recent,
            "prompts": len(self.prompts),
            "under_way": self._examples.fingerprint if self._under_way() else None,
        }

    def _under_way(self) -> bool:
        return bool(self.step % self.plan.steps) and self._examples is not None

    def save(self, path: store.Place) -> None:
        """Write the examples of the rollout under way, if steps remain to be taken with it."""
        if self._under_way():
            assert self._examples is not None
            rollout_file.write(path, self._examples)

    def restore(self, position: Mapping[str, Any], step: int, path: store.Place) -> None:
        """Go on after `step` steps, with the examples at `path` if a rollout is under way.

        Raises:
          CheckpointError: that file is missing or damaged.
        """
        self.step, self.tokens = step, position["num_tokens"]
        self.kl_coef, self.recent = position["kl_coef"], list(position["recent"])
        if self.step % self.plan.steps:
            checksum = position.get("under_way")
            self._examples = rollout_file.read(path, self.prompts.report, checksum)

    def metrics(self) -> dict[str, float]:
        """Means over the rollouts since the last call."""
        rows, self.recent = self.recent, []
        return means_of(rows)

    def describe(self) -> list[str]:
        """The rollouts in words."""
        return self.plan.describe(self.algorithm)

    def epoch(self, step: int) -> float:
        """How often the prompts have been answered before a step."""
        return step // self.plan.steps * self.plan.prompts / len(self.prompts)

    # ---- a rollout

    def _roll_out(self, number: int, state: TrainState, frozen: Frozen) -> Examples:
        """Sample and judge until there are enough examples, or attempts are used up."""
        frozen = with_reference(frozen, state)
        found: list[Any] = []
        unscored: list[Any] = []
        rows: list[dict[str, float]] = []
        for attempt in range(self.plan.attempts):
            made, metrics = self._attempt(number, attempt, state, frozen)
            kept = metrics["rollout/kept"] > 0
            (found if kept else unscored).extend(made)
            rows.append(metrics)
            if len(found) >= self.plan.prompts:
                break
        means = means_of(rows)
        means["rollout/kept"] = min(len(found), self.plan.prompts) / self.plan.prompts
        means["rollout/attempts"] = float(len(rows))
        self._steer(means)
        self.recent.append(means)
        # where no prompt is kept a step is without anything to learn from, and changes nothing
        made = found or unscored
        return Examples.from_list(made[: self.plan.prompts], self.prompts.report)

    def _attempt(
        self, number: int, attempt: int, state: TrainState, frozen: Frozen
    ) -> tuple[Examples, dict[str, float]]:
        """Examples of the prompts that are kept; if none is, of all, with nothing scored."""
        plan = self.plan
        first = (number * plan.attempts + attempt) * plan.prompts
        chosen = [int(self._order[i]) for i in range(first, first + plan.prompts)]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), 3), first)
        responses = self.sampler(state, frozen, chosen, key)
        judged = self.judge(chosen, responses)
        arrays, metrics = self._arrays(chosen, responses, judged, state, frozen, key)
        numbers = dict(self.numbers)
        if self.kl_coef is not None:
            numbers["kl_coef"] = self.kl_coef
        names = self.algorithm.rollout_inputs()
        made = self.make(*(jnp.asarray(arrays[n]) for n in names), **numbers)
        fields = {name: np.asarray(x) for name, x in made.items()}
        metrics |= critic_metrics(arrays | fields)
        if plan.importance_cap and "advantages" in fields:
            fields["advantages"] = fields["advantages"] * self._weights(arrays)
        if "old_token_logps" in arrays:
            fields["old_token_logps"] = arrays["old_token_logps"]
        if self.keep:  # with scores as they were given, not those that are learnt from
            given = {} if judged.scores is None else {"scores": judged.scores}
            self.keep((number, attempt), chosen, responses, arrays | fields | given)
        made = self._examples_of(chosen, responses, arrays["valid"], fields)
        metrics["rollout/kept"] = len(made) / plan.prompts
        if not len(made):
            fields.pop("keep")
            nothing = np.zeros_like(arrays["valid"])
            made = self._examples_of(chosen, responses, nothing, fields)
        return made, metrics

    def _arrays(
        self,
        chosen: Sequence[int],
        responses: Responses,
        judged: rollout.Judged,
        state: TrainState,
        frozen: Frozen,
        key: jax.Array,
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Everything the experience may read, and what is logged of it."""
        plan, b, k = self.plan, len(chosen), len(responses.tokens[0])
        assert self.algorithm.experience is not None
        own = slice(k if self.algorithm.experience.last == "policy" else k - 1)
        lengths = np.array([[len(r) for r in row] for row in responses.tokens])
        mask = np.arange(plan.response_len) < lengths[..., None]
        valid = lengths > 0
        arrays: dict[str, np.ndarray] = {"finished": responses.finished, "mask": mask}
        metrics = dict(judged.metrics)
        if judged.scores is not None:
            valid &= np.isfinite(judged.scores)
            arrays["scores"] = np.where(valid, judged.scores, 0.0).astype(np.float32)
            metrics |= score_metrics(judged.scores[:, own], valid[:, own])
        if judged.win_probs is not None:
            # of a prompt all comparisons are known, or it is not learnt from
            known = np.asarray(np.isfinite(judged.win_probs.sum((1, 2))))
            arrays["win_probs"] = np.where(known[:, None, None], judged.win_probs, 0.5)
            valid &= known[:, None]
        if "greedy_scores" in self.algorithm.rollout_inputs():
            assert self.greedy is not None
            likeliest = self.judge(chosen, self.greedy(state, frozen, chosen, key)).scores
            assert likeliest is not None
            known = np.isfinite(likeliest[:, 0])  # without a baseline a prompt is not learnt from
            arrays["greedy_scores"] = np.where(known, likeliest[:, 0], 0.0).astype(np.float32)
            valid &= known[:, None]
            metrics["rewards/greedy_failed"] = float((~known).sum())
        if plan.mask_truncated:
            valid &= responses.finished
        arrays["valid"] = valid
        arrays["mask"] = mask & valid[..., None]
        longest = plan.response_len
        arrays["sampler_token_logps"] = rollout.padded(responses.token_logps, longest, 0.0)
        if judged.step_scores is not None:
            arrays["step_scores"] = rollout.padded(judged.step_scores, longest, np.nan)
        if "uniforms" in self.algorithm.rollout_inputs():
            drawn = jax.random.fold_in(key, 1 << 21)  # samplers fold in smaller numbers
            arrays["uniforms"] = np.asarray(jax.random.uniform(drawn, (b, k, k)))
        if names := plan.asked_of_models(self.algorithm):
            prompts = [self.prompts[i].prompt for i in chosen]
            arrays |= self.reader(prompts, responses, names, state.params, frozen)
        metrics |= length_metrics(responses.part(own))
        logps = {n: arrays[n][:, own] for n in LOGPS if n in arrays}
        metrics |= logp_metrics(logps, mask[:, own])
        return arrays, metrics

    def _weights(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """How often tokens count; for a loss of whole responses [B, K, 1], how often those do."""
        old, sampler, mask = (arrays[n] for n in ("old_token_logps", "sampler_token_logps", "mask"))
        if self.algorithm.reduce is mean_over_examples:
            old, sampler = (np.where(mask, x, 0).sum(-1, keepdims=True) for x in (old, sampler))
            mask = mask.any(-1, keepdims=True)
        given = map(jnp.asarray, (old, sampler, mask))
        return np.asarray(importance_weights(*given, cap=self.plan.importance_cap))

    def _examples_of(self, chosen, responses, valid, fields) -> Examples:
        """The kept prompts with the taken responses and their fields."""
        fields = dict(fields)
        take, keep = fields.pop("take", None), fields.pop("keep", None)
        if take is not None:
            responses = Responses(
                [[row[j] for j in at] for row, at in zip(responses.tokens, take, strict=True)],
                [[row[j] for j in at] for row, at in zip(responses.token_logps, take, strict=True)],
                np.take_along_axis(responses.finished, take, 1),
            )
            valid = np.take_along_axis(valid, take, 1)
            whole = fields.pop("old_token_logps", None)  # pairs read no sampler's log-probs
            if whole is not None and self.algorithm.format.name == "samples":
                fields["old_token_logps"] = np.take_along_axis(whole, take[..., None], 1)
        prompts = [self.prompts[i].prompt for i in chosen]
        made = rollout.examples_of(prompts, responses, valid)
        made.extras.update({n: np.asarray(x, np.float32) for n, x in fields.items()})
        kept = range(len(made)) if keep is None else np.flatnonzero(keep)
        return made.take(kept)

    def _steer(self, means: dict[str, float]) -> None:
        """The adaptive controller of the KL coefficient."""
        if not self.plan.kl_target or self.kl_coef is None:
            return
        n = self.plan.prompts * self.plan.responses
        self.kl_coef = float(
            adaptive_kl(
                self.kl_coef,
                means["objective/kl"],
                n,
                target=self.plan.kl_target,
                horizon=float(self.plan.kl_horizon),
            )
        )
        means["objective/kl_coef"] = self.kl_coef

    # ---- batches

    def _minibatch(self, at: int) -> np.ndarray:
        """Numbers of the examples of a step of a rollout; each epoch has another order."""
        per_epoch = self.plan.prompts // self.plan.batch_size
        epoch, part = divmod(at, per_epoch)
        total = len(self._examples or ())
        rng = np.random.default_rng((self.seed, self.step // self.plan.steps, epoch))
        return np.array_split(rng.permutation(total), per_epoch)[part]

    def _on_device(self, examples: Examples, numbers: np.ndarray) -> tuple[Parts, ...]:
        k, places = examples.k or self.plan.responses, self.plan.batch_size
        if self.pretraining:
            examples = self.pretraining.beside(examples.take(numbers), self.step)
            numbers, places = np.arange(len(examples)), places + self.pretraining.count
        axes = {n: ("", "K", "KR")[np.ndim(x) - 1] for n, x in examples.extras.items()}
        fields = {n: Field(a, np.float32) for n, a in axes.items()}
        return self.bins.of(examples, numbers.tolist(), k, fields, places)
