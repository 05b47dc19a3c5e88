"""Losses are functions of arrays: call them, differentiate them, look at their shape."""

# %% Two preference pairs: log p(response | prompt) in nats, under the policy and under a frozen
# reference.
import jax
import jax.numpy as jnp

from jalign import losses

chosen, rejected = jnp.array([-12.0, -20.5]), jnp.array([-13.5, -18.0])
ref_chosen, ref_rejected = jnp.array([-12.5, -19.0]), jnp.array([-12.8, -18.5])

loss, metrics = losses.dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1)
print("one loss per pair:", loss)
print("implicit rewards: ", metrics["chosen_rewards"], metrics["rejected_rewards"])


# %% Nothing is reduced, so you choose the mean, and what to differentiate.
def objective(chosen):
    return losses.dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1)[0].mean()


print("gradient:", jax.grad(objective)(chosen))

# %% Loss and slope over the margin, for several losses of the same signature.
margin = jnp.linspace(-40.0, 40.0, 9)
zero = jnp.zeros_like(margin)


def curve(fn, **hyper):
    value = lambda m: fn(m, zero, zero, zero, **hyper)[0]  # noqa: E731
    return value(margin), jax.grad(lambda m: value(m).sum())(margin)


for fn in (losses.dpo, losses.robust_dpo, losses.gpo_hinge):
    values, slopes = curve(fn, beta=0.1)
    print(fn.__name__.ljust(12), "loss ", jnp.round(values, 2))
    print(" " * 12, "slope", jnp.round(slopes, 3))

# %% Losses of samples: PPO's clipped objective, one value per token.
token_logps = jnp.array([[-1.0, -2.0, -0.5]])
old_token_logps = jnp.array([[-1.2, -1.5, -0.5]])
mask = jnp.array([[True, True, False]])  # the last token is padding
advantages = jnp.ones((1, 3))
loss, _ = losses.ppo_clip(token_logps, old_token_logps, advantages, mask, clip_low=0.2)
print("ppo_clip per token:", jnp.where(mask, loss, 0))
