"""A batch-invariant policy compiled for a TPU: every product and every sum of the program that
computes log-probs is in the sampler's, shape for shape.
"""

import importlib.util
from collections import Counter
from pathlib import Path

import jax
import pytest

from jalign.config.read import read_config
from jalign.parallel.mesh import make_mesh
from jalign.plan import data as plan_data
from jalign.plan import programs
from jalign.plan.compile import not_cached
from jalign.plan.hlo import Module
from jalign.plan.roles import roles_of
from jalign.plan.shapes import shapes
from jalign.plan.targets import target, topology

GRPO = Path(__file__).parents[2] / "configs" / "tiny" / "grpo.yaml"


def compiled(monkeypatch, batch_invariant: bool) -> list[Module]:
    """The sampler and the scorer of GRPO on the model in the package, for a v5e."""
    texts, compile_ = [], jax.stages.Lowered.compile

    def keep(lowered, *args, **kwargs):
        result = compile_(lowered, *args, **kwargs)
        texts.append(result.as_text())
        return result

    monkeypatch.setattr(jax.stages.Lowered, "compile", keep)
    options = ["--model.dtype", "bfloat16", "--rollout.batch_invariant", str(batch_invariant)]
    config = read_config([str(GRPO), *map(str.lower, options)])
    mesh = make_mesh(devices=topology(target("v5e-1")))
    with jax.set_mesh(mesh), not_cached():
        roles = roles_of(config, mesh)
        data = plan_data.online_data(config, mesh, roles.model.decoder.spec)
        list(programs._rollout(config, mesh, roles))
        programs._reader(config, mesh, roles, data, ("old_token_logps",))
    return [Module.of(text) for text in texts[-2:]]


def sums(module: Module) -> Counter[tuple[str, ...]]:
    """Products and float32 sums, by operation, result, operands and what is contracted."""
    counts: Counter[tuple[str, ...]] = Counter()
    for computation in module.computations.values():
        for operation in computation.operations.values():
            product = operation.opcode in ("dot", "convolution")
            if not product and (operation.opcode != "reduce" or "f32" not in operation.shape):
                continue
            operands = [computation.operations[name].shape for name in operation.operands]
            arrays = [str(x[:2]) for shape in (operation.shape, *operands) for x in shapes(shape)]
            counts[operation.opcode, *arrays] += 1
    return counts


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize("batch_invariant", [True, False])
def test_the_sampler_has_every_sum_of_the_scorer_if_and_only_if_it_is_batch_invariant(
    monkeypatch, batch_invariant
):
    sampler, scorer = map(sums, compiled(monkeypatch, batch_invariant))
    missing = set(scorer) - set(sampler)
    assert scorer and bool(missing) is not batch_invariant
