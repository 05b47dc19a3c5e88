"""The loss of every step of TRL's DPO or SFT trainer, and the token ids it trained on. Needs an
environment with trl, not jalign.

    python tests/peers/trl_curve.py dpo|sft MODEL DATA.jsonl.gz OUT.json [--steps 20] [--batch 8]
    [--lr 3e-4]
"""

import argparse
import gzip
import json
import tempfile

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

parser = argparse.ArgumentParser()
parser.add_argument("kind", choices=["dpo", "sft"])
parser.add_argument("model")
parser.add_argument("data")
parser.add_argument("out")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--lr", type=float, default=3e-4)
options = parser.parse_args()

torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(options.model)
with gzip.open(options.data, "rt", encoding="utf-8") as file:
    rows = [json.loads(line) for line in file][: options.steps * options.batch]
losses: list[float] = []


def recording(base: type) -> type:
    class Recording(base):
        def compute_loss(self, *args, **kwargs):
            out = super().compute_loss(*args, **kwargs)
            losses.append(float((out[0] if isinstance(out, tuple) else out).detach()))
            return out

    return Recording


common = dict(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=options.batch,
    max_steps=options.steps,
    max_length=256,
    bf16=False,
    use_cpu=True,
    gradient_checkpointing=False,
    learning_rate=options.lr,
    lr_scheduler_type="constant",
    optim="sgd",
    max_grad_norm=0.0,
    train_sampling_strategy="sequential",
    report_to="none",
    save_strategy="no",
    disable_tqdm=True,
    logging_steps=1000,
    seed=0,
)
if options.kind == "dpo":
    data = Dataset.from_list([{k: r[k] for k in ("prompt", "chosen", "rejected")} for r in rows])
    trainer = recording(DPOTrainer)(
        model=model,
        args=DPOConfig(**common, beta=0.1),
        train_dataset=data,
        processing_class=tokenizer,
    )
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
else:
    data = Dataset.from_list([{"text": r["text"]} for r in rows])
    trainer = recording(SFTTrainer)(
        model=model, args=SFTConfig(**common), train_dataset=data, processing_class=tokenizer
    )
    columns = ("input_ids",)
trainer.train()
ids = [{c: list(row[c])[:256] for c in columns} for row in trainer.train_dataset]
with open(options.out, "w", encoding="utf-8") as file:
    json.dump({"losses": losses, "ids": ids, **vars(options)}, file)
print(f"{len(losses)} losses, first {losses[0]:.6f}, last {losses[-1]:.6f}")
