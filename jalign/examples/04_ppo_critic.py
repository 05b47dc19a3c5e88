"""PPO with a critic, which is one more argument of `online`."""

# %% The policy, with LoRA, and a reward.
import optax

import jalign

policy = jalign.load("embedded", lora=8)


def cheerful(prompts, responses):
    words = ("happy", "smile", "laugh", "fun", "love", "friend", "play")
    return [float(sum(word in r for word in words)) for r in responses]


# %% The critic has adapters of its own on the same frozen base; "shared" puts its head on the
# policy, a path loads another model.
prompts = ["Once upon a time there was a", "Lily and Tom went to the", "One day, the dog"] * 4
run = jalign.online(
    "ppo",
    policy,
    prompts=prompts,
    rewards={"cheerful": cheerful},
    max_new_tokens=24,
    batch_size=12,
    critic=None,
    gamma=1.0,
)
run.fit(steps=20, optimizer=optax.adamw(1e-3), out="runs/ppo")
print("\n".join(run.policy.generate(prompts[:3], max_new_tokens=24)))
