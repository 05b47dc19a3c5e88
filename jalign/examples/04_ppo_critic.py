"""PPO with a critic. The critic is one more argument of `load`."""

# %% Policy and critic, each with LoRA, share one frozen base model.
import optax

import jalign

policy = jalign.load("embedded", lora=8, critic=True)


def cheerful(prompts, responses):
    words = ("happy", "smile", "laugh", "fun", "love", "friend", "play")
    return [float(sum(word in r for word in words)) for r in responses]


# %% One response per prompt; the KL to the reference is part of the reward.
prompts = ["Once upon a time there was a", "Lily and Tom went to the", "One day, the dog"] * 4
run = jalign.online(
    "ppo",
    policy,
    prompts=prompts,
    rewards={"cheerful": cheerful},
    max_new_tokens=24,
    batch_size=12,
    gamma=1.0,
    lam=0.95,
)
run.fit(steps=20, optimizer=optax.adamw(1e-3), out="runs/ppo")
print("\n".join(run.policy.generate(prompts[:3], max_new_tokens=24)))
