"""What families with a mixture of experts share: sizes, and names of per-expert tensors."""

from __future__ import annotations

from typing import Any

from jalign.models.experts.spec import Experts
from jalign.models.families.base import ATTENTION, ENDS, PRE_NORMS, Config, Row, required, turned


def experts(config: Config, count: str, **switches: Any) -> Experts:
    """The mixture of a config.json whose number of experts is called `count`.

    Raises:
      ValueError: some layers have a dense MLP instead.
    """
    sparse_step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers")
    if sparse_step != 1 or dense:
        raise ValueError(
            "every layer must have experts, and here decoder_sparse_step="
            f"{sparse_step} and mlp_only_layers={dense or []} leave some a dense MLP"
        )
    # A config may have both names, of which transformers reads the first.
    return Experts(
        count=config.get(count) or required(config, "num_local_experts"),
        top_k=required(config, "num_experts_per_tok"),
        balance_coef=config.get("router_aux_loss_coef", 0.0),
        **switches,
    )


def expert_rows(mlp: str, router: str, gate: str, up: str, down: str) -> tuple[Row, ...]:
    """The rows of a Llama whose layers have experts; names follow `model.layers.{}.`."""
    matrix = lambda name: f"model.layers.{{}}.{mlp}.experts.{{}}.{name}.weight"  # noqa: E731
    return (
        *ENDS,
        *ATTENTION,
        *PRE_NORMS,
        turned(f"model.layers.{{}}.{mlp}.{router}.weight", "layers.mlp.router.kernel"),
        turned(matrix(gate), "layers.mlp.experts.gate.kernel"),
        turned(matrix(up), "layers.mlp.experts.up.kernel"),
        turned(matrix(down), "layers.mlp.experts.down.kernel"),
    )
