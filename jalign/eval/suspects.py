"""Which labels of a run's training data look wrong, by the margins of the trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jalign import losses
from jalign.core import Algorithm, Arrays, Frozen, arrays_of
from jalign.data.examples import Examples
from jalign.eval.examples import REWARDS, ExampleStep, gives_rewards, make_example_step, per_example
from jalign.eval.metrics.label_noise import holder_share, label_reliability
from jalign.run import data as build_data
from jalign.run import folder as runs
from jalign.run.batches import held_source_of
from jalign.run.devices import mesh_of
from jalign.run.roles import initial_state
from jalign.train.objective import Apply, Objective
from jalign.train.step import all_fields, as_micro_batches, with_reference

if TYPE_CHECKING:
    from jaxtyping import PyTree

    from jalign.run.data import MemoryRow

Row = dict[str, Any]


class Suspects(NamedTuple):
    """The labels of a run's training data, the most doubtful first.

    Attributes:
      rows: of each, `row` (its number in the data), `log_odds` (the margin: nats by which the
        model prefers the label), `p_wrong`, `annotator` and `label` where there is one, and the
        columns of the data, as they are before `data.flip`.
      against: share of labels that the model orders against them (margin below 0).
      wrong_share: by the posterior of `re_po`.
      holder_share: by Hölder-DPO's estimate, which is meant for a run of `holder_dpo`.
      reliability: annotator -> how often the labels are right; empty where the data name none.
    """

    rows: list[Row]
    against: float
    wrong_share: float
    holder_share: float
    reliability: Mapping[str, float]


def suspects(
    run: str, *, step: str | None = None, data: Sequence[MemoryRow] | str | None = None
) -> Suspects:
    """Rank the labels that a run was trained on, or other ones of the same kind.

    A pair's margin is the difference of its rewards, which is a log-odds where the loss is -log
    sigmoid of it (DPO, reward models); rewards on another scale (`simper`, `cal_dpo`) rank the
    labels, but the shares of wrong ones are then off. A single response's is its reward above the
    middle of the mean rewards of both labels, below it where the label is undesirable. A model that
    has learned its labels by heart doubts none of them: train for less than an epoch, or on one
    half and rank the other.

    Args:
      run: the folder of a run on pairs or labeled responses, a policy or a reward model.
      step: of the checkpoint, or "best"; None is the newest.
      data: rows, or a source of them, instead of the run's own; a run that was given its rows from
        Python needs them.

    Raises:
      ValueError: no such run, or one whose loss reports no rewards of labeled responses.
    """
    options, model, state, _ = runs.newest(run, runs.which(step))
    algorithm, mesh = options.algorithm, mesh_of(options.mesh)
    step_of = _reward_step(algorithm, model.apply)
    optimizer = options.any_optimizer()
    # the reference is not in the checkpoint where it is fixed
    _, frozen = initial_state(options, model, mesh, optimizer)
    frozen = with_reference(frozen, state)
    if isinstance(data, str):
        own = replace(options.data, train=data, eval=None, holdout=0, limit=0, flip="none")
        options, data = replace(options, data=own), None
    loaded = build_data.load(options, model.tokenizer, data, None if data is None else [])
    examples = loaded.examples
    with jax.set_mesh(mesh):
        batches = held_source_of(options, examples, mesh, model.decoder.spec).eval_batches()
        outputs = per_example(jax.jit(step_of), state.params, frozen, state.carry, batches)
    # the estimate belongs to the loss, whose gamma it shares; for others it is the paper's
    gamma = algorithm.hyperparameters["gamma"] if algorithm.loss is losses.holder_dpo else 2.0
    return ranked(_margins(outputs, examples), examples, loaded.rows, gamma=gamma)


def ranked(
    margins: np.ndarray,
    examples: Examples,
    rows: Sequence[Mapping[str, Any]],
    *,
    gamma: float = 2.0,
) -> Suspects:
    """The examples by how doubtful their labels are, with the estimates of the noise; `gamma` is
    that of `holder_share`.
    """
    names = examples.report.annotators
    who = np.asarray(examples.extras["annotator"]) if names else None
    em = label_reliability(margins, who)
    # by the posterior, not the margin: a doubtful annotator's labels are doubtful
    order = np.argsort(em.posterior, kind="stable")
    entries = []
    for i in order.tolist():
        at = int(examples.extras["row"][i])
        ours = {"row": at, "log_odds": round(float(margins[i]), 4)}
        ours["p_wrong"] = round(float(1 - em.posterior[i]), 4)
        ours |= {} if who is None else {"annotator": names[who[i]]}
        if "label" in examples.extras:  # what was trained on: one made from a pair has no column
            ours["label"] = bool(examples.extras["label"][i])
        entries.append(ours | {k: v for k, v in rows[at].items() if k not in ours})
    # the last names may have no label left, and then no number
    reliability = {n: float(eta) for n, eta in zip(names, em.eta, strict=False) if eta >= 0}
    against = float(np.mean(margins < 0))
    return Suspects(
        entries, against, em.wrong_share, holder_share(margins, gamma=gamma), reliability
    )


def _reward_step(algorithm: Algorithm, apply: Apply) -> ExampleStep:
    """As `make_example_step`, for labeled responses too."""
    if not algorithm.experience and gives_rewards(algorithm):
        return make_example_step(algorithm, apply)
    if algorithm.experience or "label" not in algorithm.format.data_fields:
        raise ValueError(
            f"suspects are labels of pairs or of single responses; {algorithm.name} reads "
            f"{algorithm.data_kind} or reports no rewards"
        )
    objective = Objective.of(algorithm)
    main = objective.terms[0]

    def rewards_of(fields: Arrays) -> Arrays:
        _, named = main.loss(**{n: fields[n] for n in arrays_of(main.loss)}, **main.hyper)
        # an outcome reward model has scores, a policy implicit rewards
        rewards = named["rewards"] if "rewards" in named else fields["scores"]
        return {"rewards": rewards, **{n: fields[n] for n in ("present", "index")}}

    def step(params: PyTree, frozen: Frozen, carry: Arrays, data: Any) -> tuple[Arrays, ...]:
        stacks = all_fields(objective, apply, params, carry, frozen, as_micro_batches(data), None)
        return tuple(map(rewards_of, stacks))

    return step


def _margins(outputs: Mapping[str, np.ndarray], examples: Examples) -> np.ndarray:
    if REWARDS[0] in outputs:
        return outputs[REWARDS[0]] - outputs[REWARDS[1]]
    rewards, good = outputs["rewards"], np.asarray(examples.extras["label"]) > 0.5
    means = [rewards[x].mean() for x in (good, ~good) if x.any()]
    return np.where(good, 1.0, -1.0) * (rewards - np.mean(means))
