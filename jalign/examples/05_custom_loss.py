"""A loss of your own, trained like the ones in the catalogue."""

# %% Arrays are positional and bound by name, hyper-parameters are keyword-only. One value per pair.
import jax
import jax.numpy as jnp
import optax

import jalign
from jalign import losses
from jalign.core import Algorithm, AuxLoss, mean_over_chosen_tokens
from jalign.formats import PAIRS


def hinge_dpo(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, *, beta=0.1, margin=1.0
):
    """max(0, margin - beta * (difference of log-ratios))."""
    chosen = beta * (chosen_logps - ref_chosen_logps)
    rejected = beta * (rejected_logps - ref_rejected_logps)
    loss = jax.nn.relu(margin - (chosen - rejected))
    return loss, {"chosen_rewards": chosen, "rejected_rewards": rejected}


# %% A misspelled array is an error in this line; an auxiliary loss gets a weight of its own.
row = Algorithm(
    "hinge_dpo",
    hinge_dpo,
    PAIRS,
    aux_losses={"nll_coef": AuxLoss(losses.nll, 0.1, mean_over_chosen_tokens)},
)
print("reads", row.inputs())

# %% Its gradient by hand: -beta where the margin is missed, else 0.
arrays = [jnp.array([-10.0, -1.0]), jnp.array([-12.0, -90.0]), *jnp.zeros((2, 2))]
gradient = jax.grad(lambda c: hinge_dpo(c, *arrays[1:])[0].sum())(arrays[0])
print("gradient", gradient)

# %% Train it. On the command line: --algorithm.name 05_custom_loss.py:row
policy = jalign.load("embedded", lora=8)
run = jalign.offline(row, policy, data="embedded", limit=256, eval_limit=32, margin=2.0)
run.fit(steps=20, optimizer=optax.adamw(1e-3), out="runs/hinge_dpo")
