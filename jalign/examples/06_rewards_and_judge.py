"""Several rewards: rules, functions that read columns of the data, and an LLM as a judge."""

# %% Columns of the data reach the functions that name them. A coroutine may ask a server.
import asyncio

import optax

import jalign
from jalign.options import JudgeConfig

rows = [
    {"prompt": "Once upon a time there was a", "wanted": "dog"},
    {"prompt": "One day, Lily found a", "wanted": "ball"},
] * 4


def mentions(prompts, responses, wanted):
    return [float(word in r) for r, word in zip(responses, wanted, strict=True)]


async def slow_but_fair(prompts, responses):
    await asyncio.sleep(0)  # a request to a service of yours
    return [None if not r.strip() else -abs(len(r.split()) - 10) / 10 for r in responses]


# %% Weights; built-in rules go by name. A response for which a function raises has no reward,
# which is counted as rewards/NAME/failed, and is excluded from the loss.
rewards = {"mentions": mentions, "length": (slow_but_fair, 0.5), "repetition": -1.0}
policy = jalign.load("embedded", lora=8)
run = jalign.online("rloo", policy, prompts=rows, rewards=rewards, max_new_tokens=16, batch_size=4)
run.fit(steps=10, optimizer=optax.adamw(1e-3), out="runs/rloo")

# %% A judge: here the story model itself, which is a bad one. A server with the OpenAI API is
# JudgeConfig(server="http://localhost:8000/v1", model=NAME, ask="score").
judge = JudgeConfig(model="embedded", ask="score")
run = jalign.online("rloo", policy, prompts=rows, judge=judge, max_new_tokens=16, batch_size=4)
run.fit(steps=2, optimizer=optax.adamw(1e-3), out="runs/judged")
print(run.policy.generate([rows[0]["prompt"]], max_new_tokens=16))
