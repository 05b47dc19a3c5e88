"""A model, with an optional critic, as one pure function and plain pytrees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx, struct
from jax import Array
from jaxtyping import PyTree

from jalign.layout import Layout
from jalign.models.experts import in_place
from jalign.models.score import Outputs, score
from jalign.parallel.memory import to_device
from jalign.parallel.paths import named_leaves, path_name


@struct.dataclass
class StandaloneModel:
    """All parameters of another model with its graph definition: a reference that is not a copy of
    the policy.
    """

    state: nnx.State
    graphdef: nnx.GraphDef = struct.field(pytree_node=False)

    @classmethod
    def of(cls, model: nnx.Module) -> StandaloneModel:
        graphdef, state = nnx.split(model)
        return cls(state, _with_frozen_experts(graphdef, nnx.State({}), state))


def functional(
    model: nnx.Module, trainable: nnx.filterlib.Filter, critic: nnx.Module | None = None
) -> tuple[Callable[..., Outputs], PyTree, PyTree]:
    """(apply, params, base): the model as a pure function and two plain pytrees, split once.

    `apply(params, base, layout, outputs, key=None, reference=None, **numbers)` is `score` of the
    model with these weights; `params` and `reference` are trainable parameters as returned here, or
    a `StandaloneModel`.

    Args:
      trainable: an nnx filter, such as `nnx.Param` (full fine-tuning) or `nnx.LoRAParam`; what it
        selects is `params`.
      critic: a second model, trained beside the first, whose scalar head gives `values`. Then
        params and base are `{"policy": ..., "critic": ...}`, and a reference is a policy alone.

    Raises:
      ValueError: when the filter selects nothing.
    """
    # Split once: nnx.jit on modules costs 4 to 19 ms of host time per step, plain pytrees 0.3 to 2.
    split = {"policy": nnx.split(model, trainable, ...)}
    if critic is not None:
        split["critic"] = nnx.split(critic, trainable, ...)
    for name, (_, params, _) in split.items():
        if not jax.tree.leaves(params):
            raise ValueError(
                f"nothing in this {name} is selected by the trainable filter {trainable!r}"
            )
    graphdefs = {
        name: _with_frozen_experts(graphdef, params, base)
        for name, (graphdef, params, base) in split.items()
    }

    def merged(params: Any, base: Any) -> Any:
        if isinstance(params, StandaloneModel):
            return nnx.merge(params.graphdef, _layers_may_wait(params.state))
        return nnx.merge(graphdefs["policy"], _layers_may_wait(params), base)

    # Weights are arguments: what a jitted function captures is compiled in as constants.
    def apply(
        params: Any,
        base: Any,
        layout: Layout,
        outputs: Sequence[str],
        key: Array | None = None,
        reference: Any = None,
        **options: Any,
    ) -> Outputs:
        outputs_of_critic = {}
        if critic is not None:
            if "values" in outputs:
                second = nnx.merge(graphdefs["critic"], params["critic"], base["critic"])
                outputs_of_critic = score(second, layout, ("values",), key=key)
                outputs = tuple(n for n in outputs if n != "values")
            params, base = policy_of(params), policy_of(base)
        other = None if reference is None else merged(policy_of(reference), base)
        policy = merged(params, base)
        return outputs_of_critic | score(
            policy, layout, outputs, reference=other, key=key, **options
        )

    if critic is None:
        _, params, base = split["policy"]
        return apply, params, base
    return (
        apply,
        {name: params for name, (_, params, _) in split.items()},
        {name: base for name, (_, _, base) in split.items()},
    )


def _with_frozen_experts(graphdef: nnx.GraphDef, params: PyTree, base: PyTree) -> nnx.GraphDef:
    """The definition of a model that knows if the matrices of its experts are not trained."""
    if any(".experts." in name and ".kernel" in name for name in named_leaves(params)):
        return graphdef
    model = nnx.merge(graphdef, params, base)
    in_place.set_frozen(model)
    return nnx.graphdef(model)


def _layers_may_wait(params: PyTree) -> PyTree:
    """Parameters on the device; those of layers may stay on the host until each layer runs."""

    def one(path: tuple, x: Any) -> Any:
        return x if path_name(path).startswith("layers.") else to_device(x)

    return jax.tree_util.tree_map_with_path(one, params)


def policy_of(params: PyTree) -> PyTree:
    """The policy's parameters, if there is a critic beside it; else `params` itself."""
    return params["policy"] if isinstance(params, dict) and "critic" in params else params
