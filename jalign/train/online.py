"""The source of an online algorithm: sample, judge, score, compute advantages, select, batch.

A rollout answers `prompts` prompts with K responses each and feeds `epochs` passes of optimizer
steps of `batch_size` prompts. Prompts, random numbers and order depend only on the number of
the rollout, and a checkpoint stores the examples of the current rollout, so a resumed run
continues exactly.

Letters: B prompts of a rollout, K responses per prompt, R most tokens of a response.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from jalign import store
from jalign.core import Algorithm, Frozen, TrainState
from jalign.data.examples import Examples
from jalign.layout import MicroBatches
from jalign.train import rollout_file
from jalign.train.experience_fields import experience_fields, steered_kl_coef
from jalign.train.idle import Idle
from jalign.train.loop import StepInfo, StopTraining
from jalign.train.micro_batches import MicroBatchPacker
from jalign.train.objective import Apply
from jalign.train.online_metrics import critic_metrics, means_of
from jalign.train.preemption import ExitCode
from jalign.train.pretraining import Pretraining
from jalign.train.protocols import JudgeRollout, OnRollout, Sampler
from jalign.train.reward_arrays import given_rewards
from jalign.train.rollout_arrays import rollout_arrays, rollout_metrics, sampler_logps
from jalign.train.rollout_spec import RolloutSpec
from jalign.train.scoring import ResponseScorer
from jalign.train.selection import Selection
from jalign.train.step import with_reference
from jalign.train.teacher import Teacher

if TYPE_CHECKING:
    from jalign.checkpoint.manifest import Facts


class Attempt(NamedTuple):
    """One attempt at a rollout.

    Attributes:
      selection: the prompts and responses to learn from.
      kept: number of prompts that the method keeps; if 0 the selection holds all, but learns
        nothing.
      metrics: for the log.
      taught: whether there is anything to learn from it.
      rewarded: whether any response has a reward.
      failures: as in `Judged`.
    """

    selection: Selection
    kept: int
    metrics: dict[str, float]
    taught: bool
    rewarded: bool
    failures: Mapping[str, str]


class Online:
    """`source(state, frozen)` returns the data of the next step, sampling when a rollout begins.

    Args:
      algorithm: a row with an experience, with its hyper-parameters.
      prompts: examples without responses.
      sampler: samples the responses; reward: judges them.
      apply: the model as a pure function.
      spec: sizes and rules.
      mesh: over all devices.
      seed: of prompts, samples and order.
      greedy: samples the most probable response, for algorithms that compare with it (ReMax).
      on_rollout: called with every attempt at a rollout.
      pretraining: texts that are packed beside the samples of each step.
      teacher: scores responses after other prompts, for algorithms that read it.
      compiler_options: those of the training step (`jalign.kernels.compiler_options`).
    """

    def __init__(
        self,
        algorithm: Algorithm,
        prompts: Examples,
        sampler: Sampler,
        reward: JudgeRollout,
        apply: Apply,
        spec: RolloutSpec,
        mesh: Mesh,
        *,
        seed: int,
        greedy: Sampler | None = None,
        on_rollout: OnRollout | None = None,
        pretraining: Pretraining | None = None,
        teacher: Teacher | None = None,
        compiler_options: Mapping[str, Any] | None = None,
    ):
        assert algorithm.experience is not None
        self.algorithm, self.spec, self.seed = algorithm, spec, seed
        self.prompts, self.sampler, self.reward, self.greedy = prompts, sampler, reward, greedy
        self.on_rollout, self.pretraining, self.teacher = on_rollout, pretraining, teacher
        # Random access: prompts follow from the rollout's number, with no iterator state to save.
        self._order: Any = (
            grain.MapDataset.source(range(len(prompts))).seed(seed).shuffle().repeat()
        )
        longest = int(prompts.lengths.prompt_len.max())
        if pretraining:
            longest = max(longest, pretraining.prompt_len)
        self.packer = MicroBatchPacker(
            mesh, longest, spec.response_len, spec.max_tokens, spec.multiple
        )
        self.scorer = ResponseScorer(apply, spec.temperature, self.packer, compiler_options)
        self.step = self.tokens = 0
        self.kl_coef = algorithm.experience_hyper().get("kl_coef")
        self.recent: list[dict[str, float]] = []
        self.idle = Idle(spec.max_idle)
        self._examples: Examples | None = None  # of the rollout under way

    @property
    def begins(self) -> bool:
        """Whether the next step needs a new rollout."""
        return self.step % self.spec.steps == 0

    def __call__(self, state: TrainState, frozen: Frozen) -> tuple[MicroBatches, ...]:
        if self.begins:
            self._examples = self._roll_out(self.step // self.spec.steps, state, frozen)
            if why := self.idle.hopeless:
                raise StopTraining(why, ExitCode.NOTHING_LEARNED)
        assert self._examples is not None
        examples, indices = self._examples, self._minibatch(len(self._examples))
        self.tokens += int(examples.lengths.row_tokens[indices].sum())
        # Shapes for a full batch also where fewer were kept, or each count would compile a program.
        k, room = examples.k or self.spec.responses, self.spec.batch_size
        if self.pretraining:
            examples = self.pretraining.beside(examples.take(indices), self.step)
            indices, room = np.arange(len(examples)), room + self.pretraining.count
        batches = self.packer.pack(examples, indices.tolist(), k, room)
        self.step += 1
        return batches

    # ---- what a checkpoint keeps

    def position(self) -> Facts:
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
        return None if self.begins else self._examples

    def save(self, path: store.StorePath) -> None:
        """Write the examples of the rollout under way, if steps with it remain."""
        if (examples := self._under_way()) is not None:
            rollout_file.write(path, examples)

    def restore(self, position: Facts, step: int, path: store.StorePath) -> None:
        """Continue after `step` steps, with the examples at `path` if a rollout is under way.

        Raises:
          CheckpointError: that file is missing or damaged.
        """
        self.step, self.tokens = step, position["num_tokens"]
        self.kl_coef, self.recent = position["kl_coef"], list(position["recent"])
        # Checkpoints of older versions have no such counts.
        self.idle = self.idle.after(position.get("idle", {}))
        if not self.begins:
            checksum = position.get("under_way")
            self._examples = rollout_file.read(path, self.prompts.report, checksum)

    # ---- what hooks and the log read

    def over(self, info: StepInfo) -> bool:
        """A hook that ends a run in which nothing can be learned (`Idle.reason`)."""
        del info
        return self.idle.reason is not None

    def metrics(self) -> dict[str, float]:
        """Means over the rollouts since the last call."""
        rows, self.recent = self.recent, []
        return means_of(rows)

    def describe(self) -> list[str]:
        """The rollouts in words."""
        return self.spec.describe(self.algorithm)

    def epoch(self, step: int) -> float:
        """How often the prompts have been answered before a step."""
        return step // self.spec.steps * self.spec.prompts / len(self.prompts)

    # ---- a rollout

    def _roll_out(self, number: int, state: TrainState, frozen: Frozen) -> Examples:
        """Sample and judge until there are enough examples, or attempts are used up."""
        # A moving reference is in the state, and every array of a rollout must see the same one.
        frozen, spec = with_reference(frozen, state), self.spec
        attempts: list[Attempt] = []
        while len(attempts) < spec.attempts and sum(a.kept for a in attempts) < spec.prompts:
            attempts.append(self._attempt(number, len(attempts), state, frozen))
        means = means_of([a.metrics for a in attempts])
        means["rollout/kept"] = min(sum(a.kept for a in attempts), spec.prompts) / spec.prompts
        means["rollout/attempts"] = float(len(attempts))
        failures = {name: why for a in attempts for name, why in a.failures.items()}
        taught, rewarded = (
            any(x) for x in zip(*((a.taught, a.rewarded) for a in attempts), strict=True)
        )
        self.idle.add(taught=taught, rewarded=rewarded, failures=failures)
        means["rollout/idle_in_a_row"] = float(self.idle.in_a_row)
        # For the next rollout: the experience of this one has used the old coefficient.
        if spec.kl_target and self.kl_coef is not None:
            self.kl_coef = steered_kl_coef(spec, self.kl_coef, means["objective/kl"])
            means["objective/kl_coef"] = self.kl_coef
        self.recent.append(means)
        # If no prompt is kept the steps get prompts with nothing to learn, and change nothing.
        selections = [a.selection for a in attempts if a.kept] or [a.selection for a in attempts]
        return Selection.concatenate(selections, spec.prompts).examples(self.prompts.report)

    def _attempt(self, number: int, attempt: int, state: TrainState, frozen: Frozen) -> Attempt:
        spec = self.spec
        # Every attempt has prompts reserved, used or not: a rollout's prompts depend on nothing
        # else.
        first = (number * spec.attempts + attempt) * spec.prompts
        indices = [int(self._order[i]) for i in range(first, first + spec.prompts)]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), 3), first)
        rollout = self.sampler(state, frozen, indices, key)
        if rollout.finished.shape != (expected := (spec.prompts, spec.responses)):
            raise ValueError(
                f"the sampler returned {rollout.finished.shape} (prompts, responses) instead of "
                f"{expected}"
            )
        rollout = rollout.padded_to(spec.response_len)
        judged = self.reward(indices, rollout)
        greedy = None
        if "greedy_scores" in self.algorithm.rollout_inputs():
            assert self.greedy is not None
            greedy = self.reward(indices, self.greedy(state, frozen, indices, key))
        arrays, metrics = rollout_arrays(self.algorithm, spec, rollout, judged, greedy, key)
        if names := spec.model_arrays(self.algorithm):
            arrays |= self.scorer(rollout, names, state.params, frozen)
        # after the policy's arrays: the teacher may be the reference that they are compared with
        if self.teacher:
            logps = self.teacher(indices, rollout, state.params, frozen)
            arrays["teacher_token_logps"] = logps
        metrics |= rollout_metrics(self.algorithm, rollout, arrays)
        fields = experience_fields(
            self.algorithm,
            arrays,
            kl_coef=self.kl_coef,
            importance_cap=spec.importance_cap,
        )
        # for corrections, or for the step to measure the distance where nothing else has
        if spec.corrections or spec.measured_in_step(self.algorithm, arrays):
            fields["sampler_token_logps"] = sampler_logps(self.algorithm, arrays)
        metrics |= critic_metrics(arrays | fields)
        if self.on_rollout:
            given = given_rewards(judged, spec.response_len)
            self.on_rollout((number, attempt), indices, rollout, arrays | fields | given)
        learned = arrays["valid"] & (rollout.finished | (not spec.mask_truncated))
        if "keep" in fields:  # groups without any learned response are not kept
            fields["keep"] = fields["keep"] & learned.any(-1)
        policy_samples = self.algorithm.format.policy_samples
        selection, kept = Selection.of(rollout, learned, fields, policy_samples=policy_samples)
        metrics["rollout/kept"] = kept / spec.prompts
        taught = bool(selection.scored.any())
        if "advantages" in fields:
            # With advantages of 0 the policy gradient is 0.
            taught &= bool(np.any(selection.fields["advantages"][selection.scored]))
        rewarded = bool(arrays["valid"].any())
        if judged.scores is not None:
            # Scores that are only logged still show that rewards work.
            rewarded |= bool(np.isfinite(judged.scores).any())
        return Attempt(selection, kept, metrics, taught, rewarded, judged.failures)

    # ---- batches

    def _minibatch(self, count: int) -> np.ndarray:
        """Indices of the examples of this step out of `count`; each epoch has another order."""
        number, step = divmod(self.step, self.spec.steps)
        per_epoch = self.spec.prompts // self.spec.batch_size
        epoch, batch = divmod(step, per_epoch)
        rng = np.random.default_rng((self.seed, number, epoch))
        # array_split, since a rollout may keep fewer prompts than its steps have room for.
        return np.array_split(rng.permutation(count), per_epoch)[batch]
