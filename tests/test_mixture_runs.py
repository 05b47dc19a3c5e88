"""Whole runs of a model with experts: one loss on any mesh and in any cutting, and routes that are
recorded and replayed.
"""

import jax
import numpy as np
import pytest

from jalign.models import hub
from tests._runs import ONLINE, rows, run
from tests.data.tiny_tokenizers import byte_level
from tests.tiny_run import write_pairs

TOKENIZER = byte_level(bos=True, bos_token="<s>", eos_token="</s>")
CONFIG = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "vocab_size": len(TOKENIZER),
    "hidden_size": 16,
    "intermediate_size": 32,
    "moe_intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": True,
}
ROUTER = {"model.router_balance": 0.1, "model.router_z": 0.01}
DPO = ROUTER | {"data.holdout": 0, "optim.learning_rate": 1e-3, "steps": 2}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    hub.save(hub.init(CONFIG, key=jax.random.key(0)), folder / "model")
    TOKENIZER.save_pretrained(folder / "model")
    write_pairs(folder / "pairs.jsonl.gz")
    run(folder, "one", "dpo", **DPO, **mesh(data=8), **{"data.max_tokens": 2048})
    return folder


def mesh(**sizes):
    axes = ("data", "fsdp", "expert", "context", "tensor")
    return {f"mesh.{axis}": sizes.get(axis, 1) for axis in axes}


def test_a_step_is_the_same_on_another_mesh_and_in_more_micro_batches(mixture):
    other = mesh(fsdp=2, expert=2, tensor=2) | {"data.max_tokens": 128}
    run(mixture, "pieces", "dpo", **DPO, **other)
    for a, b in zip(rows(mixture, "one"), rows(mixture, "pieces"), strict=True):
        for name in ("loss", "grad_norm", "router/balance", "router/entropy", "router/load_max"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, err_msg=name)
        assert 1 < a["router/load_max"] <= 2 and a["router/z"] > 0


def test_an_online_run_learns_with_the_samplers_routes(mixture):
    options = ONLINE | mesh(fsdp=4, expert=2) | {"rollout.prompts": 8, "data.holdout": 0}
    run(mixture, "replay", "grpo", **options, **{"rollout.replay_router": True}, steps=1)
    (row,) = rows(mixture, "replay")
    assert row["sampling/logp_difference_max"] < 1e-4 and row["grad_norm"] > 0
