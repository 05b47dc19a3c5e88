"""The source of an online algorithm: sample from the policy, judge, and make batches of it.

A rollout answers `prompts` prompts with K responses each and feeds `epochs` passes of optimizer
steps of `batch_size` prompts. Which prompts, which random numbers and which order follow from the
number of the rollout alone, and the examples of a rollout under way are part of what a checkpoint
keeps: a run that goes on is the run that never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jalign import store
from jalign.advantages import adaptive_kl, importance_weights
from jalign.core import Algorithm, Frozen, TrainState
from jalign.data.collate import Field
from jalign.data.examples import Examples
from jalign.layout import MicroBatches
from jalign.rollout.groups import Responses
from jalign.train import rollout, rollout_file
from jalign.train.idle import Idle
from jalign.train.loop import StepInfo, StopTraining
from jalign.train.objective import Apply
from jalign.train.online_metrics import (
    LOGPS,
    critic_metrics,
    length_metrics,
    logp_metrics,
    means_of,
)
from jalign.train.online_plan import Plan
from jalign.train.preemption import ExitCode
from jalign.train.pretraining import Pretraining
from jalign.train.reward_arrays import News, as_given, reward_arrays
from jalign.train.step import with_reference

Sampler = Callable[[TrainState, Frozen, Sequence[int], jax.Array], Responses]
"""(state, frozen, numbers of prompts, key) -> K responses to each."""

Judge = Callable[[Sequence[int], Responses], rollout.Judged]
"""(numbers of prompts, their responses) -> what rewards say of them."""

Keeper = Callable[[tuple[int, int], Sequence[int], Responses, Mapping[str, np.ndarray]], None]
"""Told of all that is sampled: ((rollout, attempt), numbers of prompts, responses, arrays)."""


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
      compiler_options: those of the training step (`jalign.train.rounding`).
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
        compiler_options: Mapping[str, Any] | None = None,
    ):
        assert algorithm.experience is not None
        self.algorithm, self.plan, self.seed = algorithm, plan, seed
        self.make = algorithm.experience.fn
        self.numbers = algorithm.experience_hyper(**hyper)
        self.prompts, self.sampler, self.judge, self.keep = prompts, sampler, judge, keep
        self.greedy, self.pretraining = greedy, pretraining
        self._order: Any = (
            grain.MapDataset.source(range(len(prompts))).seed(seed).shuffle().repeat()
        )
        longest = int(prompts.lengths.prompt_len.max())
        self.bins = rollout.Bins(
            mesh,
            max(longest, pretraining.prompt_len) if pretraining else longest,
            plan.response_len,
            plan.max_tokens,
            plan.multiple,
        )
        self.reader = rollout.Reader(apply, plan.temperature, self.bins, compiler_options)
        self.step = self.tokens = 0
        self.kl_coef = self.numbers.get("kl_coef")
        self.recent: list[dict[str, float]] = []
        self.idle = Idle(plan.max_idle)
        self._examples: Examples | None = None  # of the rollout under way

    @property
    def begins(self) -> bool:
        """Whether the next step needs a new rollout."""
        return self.step % self.plan.steps == 0

    def __call__(self, state: TrainState, frozen: Frozen) -> tuple[MicroBatches, ...]:
        at = self.step % self.plan.steps
        if at == 0:
            self._examples = self._roll_out(self.step // self.plan.steps, state, frozen)
            if why := self.idle.hopeless:
                raise StopTraining(why, ExitCode.NOTHING_LEARNED)
        assert self._examples is not None
        numbers = self._minibatch(at)
        self.tokens += int(self._examples.lengths.row_tokens[numbers].sum())
        parts = self._on_device(self._examples, numbers)
        self.step += 1
        return parts

    # ---- what a checkpoint keeps

    def position(self) -> dict[str, Any]:
        """Facts for a checkpoint; `save` writes the examples of the rollout under way."""
        examples = self._under_way()
        return {
            "num_tokens": self.tokens,
            "kl_coef": self.kl_coef,
            "recent": self.recent,
            "idle": self.idle.facts(),
            "prompts": len(self.prompts),
            "under_way": None if examples is None else examples.fingerprint,
        }

    def _under_way(self) -> Examples | None:
        return self._examples if self.step % self.plan.steps else None

    def save(self, path: store.StorePath) -> None:
        """Write the examples of the rollout under way, if steps remain to be taken with it."""
        if (examples := self._under_way()) is not None:
            rollout_file.write(path, examples)

    def restore(self, position: Mapping[str, Any], step: int, path: store.StorePath) -> None:
        """Go on after `step` steps, with the examples at `path` if a rollout is under way.

        Raises:
          CheckpointError: that file is missing or damaged.
        """
        self.step, self.tokens = step, position["num_tokens"]
        self.kl_coef, self.recent = position["kl_coef"], list(position["recent"])
        self.idle = self.idle.after(position.get("idle", {}))
        if self.step % self.plan.steps:
            checksum = position.get("under_way")
            self._examples = rollout_file.read(path, self.prompts.report, checksum)

    def over(self, moment: StepInfo) -> bool:
        """The hook that ends a run in which nothing can be learned (`Idle.reason`)."""
        del moment
        return self.idle.reason is not None

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
        taught = rewarded = False
        failures: dict[str, str] = {}
        for attempt in range(self.plan.attempts):
            made, metrics, news = self._attempt(number, attempt, state, frozen)
            kept = metrics["rollout/kept"] > 0
            (found if kept else unscored).extend(made)
            rows.append(metrics)
            taught, rewarded = taught | news.taught, rewarded | news.rewarded
            failures |= news.failures
            if len(found) >= self.plan.prompts:
                break
        means = means_of(rows)
        means["rollout/kept"] = min(len(found), self.plan.prompts) / self.plan.prompts
        means["rollout/attempts"] = float(len(rows))
        self.idle.add(taught=taught, rewarded=rewarded, failures=failures)
        means["rollout/idle_in_a_row"] = float(self.idle.in_a_row)
        self._steer(means)
        self.recent.append(means)
        # where no prompt is kept a step is without anything to learn from, and changes nothing
        made = found or unscored
        return Examples.from_list(made[: self.plan.prompts], self.prompts.report)

    def _attempt(
        self, number: int, attempt: int, state: TrainState, frozen: Frozen
    ) -> tuple[Examples, dict[str, float], News]:
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
        if self.keep:  # with rewards as they were given, not those that are learnt from
            given = as_given(judged, plan.response_len)
            self.keep((number, attempt), chosen, responses, arrays | fields | given)
        learnt = self._learnt(arrays)
        if "keep" in fields:  # a group of which the loss reads nothing is none
            fields["keep"] = fields["keep"] & learnt.any(-1)
        made = self._examples_of(chosen, responses, learnt, fields)
        metrics["rollout/kept"] = len(made) / plan.prompts
        taught = any(scored.any() for example in made for scored in example.scored)
        if "advantages" in fields:
            taught &= bool(np.any(fields["advantages"][arrays["mask"] & learnt[..., None]]))
        if not len(made):
            fields.pop("keep")
            nothing = np.zeros_like(learnt)
            made = self._examples_of(chosen, responses, nothing, fields)
        scores = np.array(np.nan) if judged.scores is None else judged.scores
        rewarded = bool(arrays["valid"].any() or np.isfinite(scores).any())
        return made, metrics, News(taught, rewarded, judged.failures)

    def _learnt(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """[B, K] the responses that the loss may read."""
        return arrays["valid"] & (arrays["finished"] | (not self.plan.mask_truncated))

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
        own = slice(k if self.algorithm.experience.opponent == "policy" else k - 1)
        lengths = np.array([[len(r) for r in row] for row in responses.tokens])
        mask = np.arange(plan.response_len) < lengths[..., None]
        read = set(self.algorithm.rollout_inputs())
        longest = plan.response_len
        arrays, valid, metrics = reward_arrays(self.algorithm, judged, longest, own)
        arrays |= {"finished": responses.finished, "mask": mask}
        valid = valid & (lengths > 0)
        if "greedy_scores" in read:
            assert self.greedy is not None
            likeliest = self.judge(chosen, self.greedy(state, frozen, chosen, key)).scores
            assert likeliest is not None
            known = np.isfinite(likeliest[:, 0])  # without a baseline a prompt is not learnt from
            arrays["greedy_scores"] = np.where(known, likeliest[:, 0], 0.0).astype(np.float32)
            valid &= known[:, None]
            metrics["rewards/greedy_failed"] = float((~known).sum())
        if plan.mask_truncated and not self.algorithm.format.policy_samples:
            valid &= responses.finished  # what is cut is no best, chosen or rejected response
        arrays["valid"] = valid
        arrays["mask"] = mask & valid[..., None]
        arrays["sampler_token_logps"] = rollout.padded(responses.token_logps, longest, 0.0)
        if "uniforms" in read:
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
        if not self.algorithm.loss_per_token:
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
            if whole is not None and self.algorithm.format.policy_samples:
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

    def _on_device(self, examples: Examples, numbers: np.ndarray) -> tuple[MicroBatches, ...]:
        k, places = examples.k or self.plan.responses, self.plan.batch_size
        if self.pretraining:
            examples = self.pretraining.beside(examples.take(numbers), self.step)
            numbers, places = np.arange(len(examples)), places + self.pretraining.count
        axes = {n: ("", "K", "KR")[np.ndim(x) - 1] for n, x in examples.extras.items()}
        fields = {n: Field(a, np.float32) for n, a in axes.items()}
        return self.bins.of(examples, numbers.tolist(), k, fields, places)
