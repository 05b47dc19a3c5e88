"""PPO's four roles (policy, reference, critic, reward model) as models of their own and as adapters
on one frozen base; peak resident memory and seconds per step:

    python configs/real/roles.py MODEL_FOLDER PAIRS.jsonl.gz OPENINGS.jsonl.gz OUT

Three steps of 8 responses of at most 32 tokens; the reward model is trained for one step, which
changes no size.
"""

import json
import sys
from pathlib import Path
from statistics import median

from _process import train

PAIRS = str(Path(__file__).with_name("stories15m_cpu.yaml"))
ONLINE = str(Path(__file__).with_name("stories15m_online.yaml"))
LORA = ["--model.lora.rank", "16"]
SMALL = ["--batch_size", "8", "--optim.warmup_steps", "0", "--log_every", "1"]


def main(model: str, pairs: str, openings: str, out: str) -> None:
    print("| roles | seconds per step | peak GiB |")
    print("|---|---|---|")
    for name, lora in (("four models", []), ("adapters on one base", LORA)):
        folder = Path(out) / name.replace(" ", "_")
        given = ["--model.path", model, *lora, *SMALL]
        rewarded = ["--algorithm.name", "bradley_terry", "--data.train", pairs, "--steps", "1"]
        few = ["--data.limit", "400", "--data.eval_limit", "8"]
        train(PAIRS, folder / "reward", *given, *rewarded, *few)
        rewards = ["--reward.functions", "{}", "--reward.model", str(folder / "reward")]
        prompts = ["--data.train", openings, "--data.limit", "400", "--data.holdout", "8"]
        ppo = ["--algorithm.name", "ppo", *rewards, *prompts, "--steps", "3"]
        cost = train(ONLINE, folder / "ppo", *given, *ppo)
        rows = map(json.loads, (folder / "ppo" / "metrics.jsonl").read_text().splitlines())
        seconds = [r["step_time"] for r in rows if r["kind"] == "train"][1:]  # the first compiles
        print(f"| {name} | {median(seconds):.2f} | {cost['gib']:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
