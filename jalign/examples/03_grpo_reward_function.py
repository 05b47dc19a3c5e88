"""GRPO with a verifiable reward: a response is right or wrong."""

# %% Prompts are rows; the further columns (here `answer`) are for the reward function.
import optax

import jalign

rows = [{"prompt": f"{a} + {b} =", "answer": str(a + b)} for a in range(10) for b in range(10 - a)]


# %% A reward function names the columns it reads. One number per response; None: does not apply.
def exact(prompts, responses, answer):
    return [float(r.strip() == a) for r, a in zip(responses, answer, strict=True)]


def short(prompts, responses):
    """A little for a short response, so that something is learned before one is right."""
    return [-len(r) / 100 for r in responses]


# %% Eight responses to each prompt; the advantage is the reward relative to the other seven.
policy = jalign.load("embedded")
run = jalign.online(
    "grpo",
    policy,
    prompts=rows,
    rewards={"exact": exact, "short": short},
    responses=8,
    max_new_tokens=4,
    batch_size=8,
    kl_k3_coef=0.04,
)
run.fit(steps=20, optimizer=optax.adamw(1e-3), out="runs/grpo")

# %% The story model cannot add, and needs to see the format first: configs/real/arithmetic.py
# takes it from 0 to 99 % right.
print(run.policy.generate(["2 + 2 ="], max_new_tokens=4))
