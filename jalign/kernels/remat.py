"""What the backward pass of a layer recomputes, and what is kept for it instead (rematerialization;
Chen et al. 2016, https://arxiv.org/abs/1604.06174).

Kept for a token and layer of Llama-3 8B, in KiB: full 8, attention_output 16, attention 36, dots
100.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

# Names of arrays (`jax.ad_checkpoint.checkpoint_name`) by which policies select them.
ATTENTION_INPUT = "attention_input"  # queries, keys and values as a kernel reads them
ATTENTION_OUTPUT = "attention_output"  # of a kernel, and its log-sum-exp
RESIDUAL = "residual"  # the residual stream between attention and MLP

_policies = jax.checkpoint_policies

REMAT: dict[str, Callable[..., Any]] = {
    "none": lambda f, prevent_cse: f,
    # Products without batch dims are those with weights; attention scores, [T, T], are recomputed.
    # 16k tokens of TinyLlama on an H200: none 52 GiB, dots 23, full 13.
    "dots": functools.partial(
        jax.checkpoint,
        policy=_policies.save_from_both_policies(
            _policies.dots_with_no_batch_dims_saveable,
            _policies.save_only_these_names(ATTENTION_OUTPUT),
        ),
    ),
    "attention": functools.partial(
        jax.checkpoint,
        policy=_policies.save_only_these_names(ATTENTION_INPUT, ATTENTION_OUTPUT, RESIDUAL),
    ),
    "attention_output": functools.partial(
        jax.checkpoint, policy=_policies.save_only_these_names(ATTENTION_OUTPUT)
    ),
    "full": jax.checkpoint,
}
"""none: nothing is recomputed. dots: all but products with weights and the output of attention.
attention: all but what attention reads and writes, which leaves the MLP. attention_output: all but
what it writes. full: each layer. cuDNN's and XLA's attention keep no output for their gradient.
Of a mixture on a v5p keys and values, x A of adapters and the residual stream after attention were
kept too, and its step was no shorter: what is kept is written and read at a third of the bandwidth.
"""
