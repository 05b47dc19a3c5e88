"""`jalign eval CONFIG|RUN`: the held-out metrics of a model as it is, or of a run's newest
checkpoint.
"""

from collections.abc import Sequence

import jax
from rich.console import Console
from rich.table import Table

from jalign.cli import build, runs
from jalign.cli.read import read_config
from jalign.core import Mean
from jalign.train.step import make_eval_step


def evaluate(args: Sequence[str], console: Console) -> dict[str, float]:
    """Metrics of the held-out data under the config's algorithm; the reference is the model
    that the run starts from.
    """
    if args and runs.is_run(args[0]):
        if len(args) > 1:
            raise ValueError(
                f"a run is evaluated with its own config; leave out {' '.join(args[1:])}"
            )
        config, model, state, step = runs.newest(args[0])
        what = f"step {step} of {args[0]}"
        mesh = build.mesh_of(config)
    else:
        config = read_config(args, "eval")
        mesh = build.mesh_of(config)
        model = build.model_of(config, mesh, build.tokenizer_of(config))
        state, what = None, model.path
    optimizer, _ = config.optim.make(max(config.steps, config.optim.warmup_steps, 1))
    initial, frozen = build.state_of(config, model, mesh, optimizer)
    state = state or initial
    _, held = build.examples_of(config, model.tokenizer)
    if held is None:
        raise ValueError("there are no held-out data: set data.eval or data.holdout")
    algorithm = build.algorithm_of(config)
    step_fn = jax.jit(make_eval_step(algorithm, model.apply, **config.hyper))
    total: dict[str, Mean] | None = None
    with jax.set_mesh(mesh):
        for data in build.held_source_of(config, held, mesh, model.decoder.spec).eval_batches():
            means = step_fn(state.params, frozen, state.carry, data)
            total = means if total is None else jax.tree.map(lambda a, b: a + b, total, means)
    results = {name: float(mean.shown) for name, mean in sorted((total or {}).items())}
    heading = f"{what}, {len(held)} held-out examples"
    console.print(heading, markup=False, highlight=False, soft_wrap=True)
    table = Table("metric", "value")
    for name, value in results.items():
        table.add_row(name, f"{value:.5f}")
    console.print(table)
    return results
