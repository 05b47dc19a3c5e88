"""Seconds of TRL's DPO step on real lengths (prompt, chosen and rejected) with random tokens.
Needs an environment with trl, not jalign.

    python tests/peers/trl_lengths.py LENGTHS.npz [--pairs 8] [--steps 15]
    jalign bench step --lengths LENGTHS.npz --pairs 8 --prompt 64

The model is that of `jalign.bench.workloads.TINY_LLAMA`; rows above 512 tokens are left out.
"""

import argparse
import json
import statistics
import tempfile
import time

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer

VOCABULARY = 4096
parser = argparse.ArgumentParser()
parser.add_argument("lengths")
parser.add_argument("--pairs", type=int, default=8)
parser.add_argument("--steps", type=int, default=15)
parser.add_argument("--warmup", type=int, default=3)
options = parser.parse_args()

special = ["<pad>", "<bos>", "<eos>", "<unk>"]
vocabulary = {w: i for i, w in enumerate([*special, *(f"w{i}" for i in range(4, VOCABULARY))])}
words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
)
torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
    )
)
with np.load(options.lengths) as found:
    rows = np.stack([found["P"], found["C"], found["R"]], 1)
rows = rows[rows[:, 0] + rows[:, 1:].max(1) <= 512]
rng = np.random.default_rng(0)
rows = rows[rng.permutation(len(rows))[: options.pairs * options.steps]]


def text(n: int) -> str:
    return " ".join(f"w{i}" for i in rng.integers(4, VOCABULARY, n)) + " "


data = Dataset.from_list(
    [
        {"prompt": text(p), "chosen": text(max(c - 1, 1)), "rejected": text(max(r - 1, 1))}
        for p, c, r in rows.tolist()
    ]
)
wall, cpu = [], []


class Clock(TrainerCallback):
    def on_step_begin(self, *args, **kwargs):
        self.start = time.perf_counter(), time.process_time()

    def on_step_end(self, *args, **kwargs):
        wall.append(time.perf_counter() - self.start[0])
        cpu.append(time.process_time() - self.start[1])


folder = tempfile.mkdtemp()
model.save_pretrained(folder)  # the trainer loads the reference from there
tokenizer.save_pretrained(folder)
model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
trainer = DPOTrainer(
    model=model,
    args=DPOConfig(
        output_dir=folder,
        per_device_train_batch_size=options.pairs,
        max_steps=options.steps,
        max_length=1024,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        report_to="none",
        save_strategy="no",
        logging_steps=1000,
        disable_tqdm=True,
    ),
    train_dataset=data,
    processing_class=tokenizer,
    callbacks=[Clock()],
)
trainer.train()
wall, cpu = wall[options.warmup :], cpu[options.warmup :]
print(
    json.dumps(
        {
            "name": f"trl dpo, real lengths, {options.pairs} pairs",
            "steps": len(wall),
            "median_s": round(statistics.median(wall), 4),
            "mean_s": round(statistics.fmean(wall), 4),
            "median_cpu_s": round(statistics.median(cpu), 4),
            "mean_cpu_s": round(statistics.fmean(cpu), 4),
        }
    )
)
