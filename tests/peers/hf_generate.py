"""Tokens per second of transformers' generate.
Needs an environment with torch and transformers, not jalign.

    python tests/peers/hf_generate.py [--rows 8] [--greedy]
    jalign bench sample --rows 8

The model is that of `jalign.bench.rollouts.SMALL_LLAMA`: random, 6 layers, width 288, tied head.
"""

import argparse
import json
import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, default=8)
parser.add_argument("--prompt", type=int, default=32)
parser.add_argument("--new", type=int, default=128)
parser.add_argument("--vocabulary", type=int, default=32000)
parser.add_argument("--greedy", action="store_true")
parser.add_argument("--repeats", type=int, default=5)
options = parser.parse_args()

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=288,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
).eval()
prompts = torch.randint(4, options.vocabulary, (options.rows, options.prompt))
how = {"do_sample": not options.greedy, "top_k": 0, "pad_token_id": 0, "eos_token_id": -1}
how |= {"max_new_tokens": options.new, "min_new_tokens": options.new}


def seconds() -> float:
    begin = time.perf_counter()
    with torch.no_grad():
        found = model.generate(prompts, attention_mask=torch.ones_like(prompts), **how)
    assert found.shape[1] == options.prompt + options.new
    return time.perf_counter() - begin


seconds()
median = statistics.median(seconds() for _ in range(options.repeats))
speed = round(options.rows * options.new / median, 1)
print(
    json.dumps(
        {"rows": options.rows, "tokens_per_second": speed, "threads": torch.get_num_threads()}
    )
)
