"""A reward model from preference pairs, its report, and the best of n responses by it."""

# %% Bradley-Terry on the pairs in the package: happier stories are preferred.
import numpy as np
import optax

import jalign

policy = jalign.load("embedded")
run = jalign.reward_model("bradley_terry", policy, data="embedded", eval_limit=64)
run.fit(steps=40, optimizer=optax.adamw(3e-4), out="runs/rm")
print({name: round(value, 3) for name, value in run.evaluate().items()})

# %% The rewards of responses.
prompts = [f"Once upon a time there was a {x}." for x in ("dog", "cat", "frog", "boy", "girl")]
print(run.reward(prompts[:1] * 2, [" He was happy.", " He was sad."]))

# %% Best of 8, by the reward model.
responses = policy.generate(prompts[:1] * 8, max_new_tokens=24, temperature=1.0)
print(responses[int(np.argmax(run.reward(prompts[:1] * 8, responses)))])

# %% A finished run is a reward of online methods, by its folder or as the object.
run = jalign.online("rloo", policy, prompts, rewards={"rm": "runs/rm"}, max_new_tokens=24)
run.fit(steps=2, optimizer=optax.adamw(1e-4), out="runs/rlhf")

# %% Any run is opened again by its folder.
print(jalign.open("runs/rlhf").policy.generate(prompts[:1], max_new_tokens=24))
