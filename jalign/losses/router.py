"""Losses of the router of a mixture of experts, added to any other loss."""

from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32

Out = tuple[Float[Array, "B K"], dict[str, Float[Array, "B K"]]]


def router_balance(
    router_balance: Float[Array, "B K"],
    router_entropy: Float[Array, "B K"],
    router_load: Float[Array, "B K"],
) -> Out:
    """sum_e f_e P_e of each response: low where its tokens use all experts.

    DeepSeek-AI 2024 (DeepSeek-V3), https://arxiv.org/abs/2412.19437, equations 17 to 20: the loss
    of Switch Transformers (https://arxiv.org/abs/2101.03961, equation 4) for one sequence instead
    of a batch, so that it does not depend on what else is in the batch.

    Args:
      router_balance: f_e = E / k times the share of tokens that use expert e (without a gradient),
        P_e the mean probability; 1 if balanced, at most E / k.
      router_entropy: of the router's probabilities, nats, mean over tokens.
      router_load: the largest f_e, 1 if balanced, at most E / k.
    Returns:
      The unreduced term, and it, entropy and load as `router/balance`, `router/entropy` and
      `router/load_max`.
    Deviations: means over layers instead of sums; prompts are not counted.
    """
    balance, entropy, load = f32(router_balance, router_entropy, router_load)
    return balance, {
        "router/balance": balance,
        "router/entropy": entropy,
        "router/load_max": load,
    }


def router_z(router_z: Float[Array, "B K"]) -> Out:
    """(log sum_e exp logit_e)^2, mean over the tokens of a response: keeps the logits small.

    Zoph et al. 2022 (ST-MoE), https://arxiv.org/abs/2202.08906, equation 5.

    Args:
      router_z: the squared log of the normalizer of the router's softmax, mean over layers.
    Returns:
      The unreduced term, and it again as `router/z`.
    Deviations: prompts are not counted.
    """
    (z,) = f32(router_z)
    return z, {"router/z": z}
