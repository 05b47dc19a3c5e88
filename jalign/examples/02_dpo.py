"""DPO on preference pairs of your own: LoRA, evaluation, and a Hugging Face folder at the end."""

# %% Pairs in the layout that public data sets have. A file or a hub name works, too.
import optax

import jalign

names = ["Lily", "Tom", "Ben", "Mia", "Max", "Sara", "Anna", "Tim"]
rows = [
    {
        "prompt": f"Once upon a time {name} went to the {place}.",
        "chosen": f" {name} was happy and smiled.",
        "rejected": f" {name} was sad and cried.",
    }
    for name in names
    for place in ("park", "zoo", "beach", "school")
]

# %% "embedded" is the small story model in the package; any Hugging Face name or folder will do.
policy = jalign.load("embedded", lora=8)
print(policy.generate(["Once upon a time Lily went to the zoo."], max_new_tokens=12)[0])

# %% A misspelled hyper-parameter is an error here, before anything is compiled.
run = jalign.offline("dpo", policy, data=rows[:24], eval=rows[24:], beta=0.1, batch_size=8)

# %% Metrics, checkpoints and config.json go to runs/dpo; running this again resumes there.
run.fit(steps=40, optimizer=optax.adamw(2e-3), out="runs/dpo", eval_every=20)
metrics = run.evaluate()
print("held-out accuracy", metrics["rewards/accuracies"], "margin", metrics["rewards/margins"])

# %% Adapters are merged; adapter=True writes LoRA alone, for peft.
print(run.policy.generate(["Once upon a time Lily went to the zoo."], max_new_tokens=12)[0])
run.policy.save("exported")
