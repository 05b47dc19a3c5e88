"""The step of a list method on K responses to a prompt, beside the same lists expanded into pairs.

    python configs/real/lists.py [STEPS]

A random Llama (4 layers, width 256) with AdamW, two lists per step, prompts of 256 and responses of
64 tokens, reference log-probs cached. A list goes through the model as one prompt and its K
responses (info_nca_list). Expanded, the best response meets each other one in a pair with the
prompt (dpo): K - 1 pairs, the fewest that read every response. Both take turns in one process, step
by step; medians of CPU-seconds, so that other load on the machine does not count.
"""

import statistics
import sys

import numpy as np

from jalign.bench.measure import Step, steps
from jalign.bench.workloads import random_step

PROMPT, RESPONSE, LISTS = 256, 64, 2


def turns(k: int, count: int) -> tuple[list[Step], list[Step]]:
    """`count` steps of lists and of pairs, one after the other, after one of each to compile."""
    one_list, one_pair = PROMPT + k * RESPONSE, PROMPT + 2 * RESPONSE
    lists = np.tile([PROMPT, *[RESPONSE] * k], (LISTS, 1))
    pairs = np.tile([PROMPT, RESPONSE, RESPONSE], (LISTS * (k - 1), 1))
    # micro-batches of about the same size, all of them full but for 64 tokens
    cut = {"reference": "cached", "max_tokens": one_list + 64}
    works = [random_step("info_nca_list", lists, pairs=LISTS, **cut)]
    cut["max_tokens"] = one_list // one_pair * one_pair + 64
    works.append(random_step("dpo", pairs, pairs=len(pairs), **cut))
    both = [steps(work) for work in works]
    rows = [tuple(next(x) for x in both) for _ in range(count + 1)][1:]
    return [a for a, _ in rows], [b for _, b in rows]


def main(count: int = 5) -> None:
    print(
        "| K | tokens, lists | tokens, pairs | CPU-s, lists | CPU-s, pairs | pairs / lists | ",
        end="",
    )
    print("CPU-ms per 1000 tokens, lists |")
    print("|---|---|---|---|---|---|---|")
    for k in (2, 4, 8, 16, 32):
        a, b = (statistics.median(s.cpu_s for s in x) for x in turns(k, count))
        tokens = LISTS * (PROMPT + k * RESPONSE), LISTS * (k - 1) * (PROMPT + 2 * RESPONSE)
        print(f"| {k} | {tokens[0]} | {tokens[1]} | {a:.2f} | {b:.2f} | {b / a:.2f} | ", end="")
        print(f"{1e6 * a / tokens[0]:.0f} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
