"""Held-out metrics of a run in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from jalign.core import Frozen
from jalign.kernels.compiler_options import compiler_options
from jalign.run.batches import held_source_of
from jalign.run.roles import initial_state
from jalign.run.rollouts import evaluator_of
from jalign.train.hooks.evaluate import held_out_means
from jalign.train.step import make_eval_step, with_reference

if TYPE_CHECKING:
    from jalign.core import TrainState
    from jalign.run.run import Run
    from jalign.run.setup import Setup


def held_out_metrics(run: Run) -> dict[str, float]:
    """The metrics that the run records at an evaluation.

    Raises:
      ValueError: the run has no held-out data.
    """
    setup = run.setup
    if not setup.held:
        raise ValueError("there are no held-out data: give eval")
    if run.session is not None:
        state, frozen = run.session.state, run.session.frozen
    else:
        optimizer = setup.options.any_optimizer()  # only the parameters are read
        state, frozen = initial_state(setup.options, setup.roles, setup.mesh, optimizer)
    frozen = with_reference(frozen, state)
    if setup.held_table is None:
        return _of_data(setup, state, frozen)
    assert setup.reward is not None
    evaluate = evaluator_of(
        setup.options, setup.roles, setup.held_table, setup.mesh, setup.reward, lambda: False
    )
    return evaluate(state, frozen) or {}


def _of_data(setup: Setup, state: TrainState, frozen: Frozen) -> dict[str, float]:
    roles, options = setup.roles, setup.options
    assert setup.held is not None
    batches = held_source_of(options, setup.held, setup.mesh, roles.decoder.spec)
    step = jax.jit(
        make_eval_step(options.algorithm, roles.apply),
        # as the run's own evaluation, so that both give the same digits
        compiler_options=compiler_options(roles.decoder.dtype),
    )
    return held_out_means(
        [step(state.params, frozen, state.carry, data) for data in batches.eval_batches()]
    )
