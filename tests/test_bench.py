"""Benchmarks of published shapes with random weights: what is counted, and online steps."""

import jax
import pytest

from jalign.bench import measure, rollouts
from jalign.bench.online import config_online_step
from jalign.config.read import read_config
from jalign.kernels.devices import ACCELERATORS
from jalign.models.spec import Spec

SPEC = Spec(
    vocab_size=11, width=3, depth=1, heads=2, kv_heads=1, head_dim=5, mlp_width=7, tied=False
)
LAYER = 3 * 5 * (2 * 2 + 2 * 1) + 3 * 3 * 7


def test_sampling_counts_a_prompt_once_and_every_new_token_of_each_response():
    prompts, responses, prompt, new = 2, 3, 4, 2
    linear = 2 * LAYER * (prompts * prompt + prompts * responses * new)
    # a new token at position 4 or 5 sees itself and all before it
    seen = prompts * (1 + 2 + 3 + 4) + prompts * responses * (5 + 6)
    head = 2 * 3 * 11 * prompts * responses * new
    want = linear + 4 * 2 * 5 * seen + head
    assert rollouts.sampling_flops(SPEC, prompts, responses, prompt, new) == want


def test_decoding_is_compared_with_the_bandwidth_and_the_arithmetic_of_a_known_device(monkeypatch):
    config = rollouts.sampled_config(None, 512)
    assert rollouts.decode_utilization(config, 4, 8, 16, 100.0) == {}  # a CPU
    card = ACCELERATORS["h200"]._replace(flops=1e9, bandwidth=1e9)
    monkeypatch.setattr(rollouts, "known", lambda kind: card)
    slow = rollouts.decode_utilization(config, 4, 8, 16, 100.0)
    fast = rollouts.decode_utilization(config, 4, 8, 16, 200.0)
    # 6 layers of 4 * 288^2 + 3 * 288 * 768 and a head of 288 * 512 numbers of 4 bytes, and a cache
    weights = 4 * (6 * (4 * 288**2 + 3 * 288 * 768) + 288 * 512)
    cache = 4 * (2 * 6 * 288 * 4) * (16 * 8 + 16 * 16 / 2)
    read = (16 * weights + cache) / (4 * 16 / 100.0)
    assert slow["bandwidth_share"] == pytest.approx(read / 1e9, abs=1e-4)
    assert fast["mfu"] == pytest.approx(2 * slow["mfu"], abs=2e-4) and slow["mfu"] > 0


TINY = (
    "tiny/grpo", "--model.depth", "1", "--batch_size", "8", "--mesh.fsdp", "-1",
    "--data.max_prompt_len", "8", "--rollout.max_new_tokens", "4", "--rollout.responses", "2",
)  # fmt: skip


def test_a_step_of_an_online_config_samples_full_responses_from_random_weights():
    work = config_online_step(read_config([*TINY, "--data.train", "nowhere.jsonl"]))
    step = next(measure.steps(work))
    assert step.tokens == 8 * 2 * (8 + 4) and 0 < step.data_s < step.wall_s
    assert work.flops > 0 and work.rows_per_step == 16
    assert jax.sharding.get_abstract_mesh().empty


@pytest.mark.parametrize("algorithm", ["remax", "nash_md"])
def test_an_algorithm_that_samples_from_more_than_the_policy_is_refused(algorithm):
    with pytest.raises(ValueError, match="samples from the policy alone"):
        config_online_step(read_config([*TINY, "--algorithm", algorithm]))
