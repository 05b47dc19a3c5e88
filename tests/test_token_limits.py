"""No token and no row is beyond the tables of a model: JAX would clamp it without a word."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from jalign.algorithms import get
from jalign.config.read import read_config
from jalign.data.examples import Example, Examples
from jalign.models.decoder import Decoder
from jalign.models.experts.spec import Experts
from jalign.models.limits import check_length, check_rows
from jalign.models.spec import Spec
from jalign.rewards.judge import ModelJudge
from jalign.rewards.model import RewardModel
from jalign.rollout.refill import respond_refilling
from jalign.rollout.sampler import Settings, sample
from jalign.run import limits as check_tokens
from tests._tiny import arguments_of
from tests.data.tiny_tokenizers import byte_level

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "models"  # 80 embeddings; gpt2 has 160 positions, llama 64
SMALL = {"width": 8, "depth": 1, "heads": 2, "kv_heads": 1, "head_dim": 4, "mlp_width": 8}


class Words:
    def convert_ids_to_tokens(self, token):
        return f"word-{token}"


def config_of(name, *more):
    return read_config([str(ROOT / "configs" / "tiny" / f"{name}.yaml"), *more])


def examples_of(*rows, number=10):
    """Rows (prompt, response, ...) of ids; example i is of row i * 10 + 10."""
    return Examples.from_list(
        Example(
            np.array(prompt, np.int32),
            tuple(np.array(r, np.int32) for r in responses),
            tuple(np.ones(len(r), bool) for r in responses),
            {"row": np.int32(number * (i + 1))},
        )
        for i, (prompt, *responses) in enumerate(rows)
    )


def of(model, *more):
    return ("--model.path", str(GOLDEN / model), *more)


def row(n, ids=3):
    return [ids] * n


def test_the_largest_id_that_a_model_has_and_the_longest_row_pass():
    config = config_of("dpo", *of("gpt2"))
    examples = examples_of(([79, 0], [5], [6, 7]), (row(60), row(4), row(3)))
    assert check_tokens.check(config, Words(), examples, examples) == []


@pytest.mark.parametrize("place", [0, 1, 2], ids=["prompt", "first", "second"])
@pytest.mark.parametrize("part", ["training", "held-out"])
def test_a_token_without_an_embedding_is_named_with_its_row(place, part):
    bad: list[list[int]] = [[1], [2], [3]]
    bad[place] = [4, 80]
    examples, fine = examples_of(([5], [6], [7]), bad), examples_of(([5], [6], [7]))
    both = (examples, fine) if part == "training" else (fine, examples)
    with pytest.raises(ValueError, match=f"row 20 of the {part} data.*'word-80' of id 80.*has 80"):
        check_tokens.check(config_of("dpo", *of("gpt2")), Words(), *both)


def test_a_row_beyond_learned_positions_is_refused_with_both_sizes():
    examples = examples_of(([5], [6], [7]), (row(156), row(2), row(5)))
    with pytest.raises(ValueError, match=r"row 20 .* takes 161 tokens, but .*gpt2 has 160 posit"):
        check_tokens.check(config_of("dpo", *of("gpt2")), Words(), examples)


def test_a_row_beyond_the_trained_context_of_rotary_positions_is_warned_of():
    examples = examples_of(([5], [6], [7]), (row(60), row(2), row(5)))
    (warning,) = check_tokens.check(config_of("dpo", *of("llama")), Words(), examples)
    assert "row 20" in warning and "65 tokens" in warning and "trained for 64" in warning


@pytest.mark.parametrize(("name", "key"), [("dpo", "reference"), ("ppo", "critic")])
def test_other_models_of_a_run_are_asked_too(name, key):
    config = config_of(name, f"--model.{key}", str(GOLDEN / "gpt2"))  # the model has 2048
    with pytest.raises(ValueError, match=rf"id 80, but model\.{key} .* has 80 embeddings"):
        check_tokens.check(config, Words(), examples_of(([5, 80], [6], [7])))
    with pytest.raises(ValueError, match=rf"but model\.{key} .* has 160 positions"):
        check_tokens.check(config, Words(), examples_of((row(156), row(5), row(1))))


def test_what_is_sampled_after_a_prompt_counts():
    config = config_of("grpo", *of("gpt2", "--rollout.max_new_tokens", "10"))
    assert not check_tokens.check(config, Words(), examples_of((row(150), row(1))))
    with pytest.raises(ValueError, match=r"row 10 .* 161 tokens.*rollout[.]max_new_tokens"):
        check_tokens.check(config, Words(), examples_of((row(151), row(1))))


def test_generations_shown_in_a_run_count():
    config = config_of("sft", *of("gpt2", "--sample.prompts", "1", "--sample.max_new_tokens", "9"))
    held = examples_of((row(151), row(1)), (row(152), row(1)))  # the second is not shown
    assert not check_tokens.check(config, Words(), None, held)
    with pytest.raises(ValueError, match=r"row 10 .* 161 tokens.*sample[.]max_new_tokens"):
        check_tokens.check(config, Words(), None, examples_of((row(152), row(1))))


def test_a_response_beside_another_prompt_counts():
    config = config_of("kto", *of("gpt2"))
    examples = examples_of((row(156), row(1)), (row(1), row(5)))
    with pytest.raises(ValueError, match=r"row 10 .* 161 tokens"):
        check_tokens.check(config, Words(), examples)


def test_pretraining_texts_are_checked_under_their_own_name():
    config = read_config([*arguments_of(get("ppo_ptx")), *of("gpt2")])
    with pytest.raises(ValueError, match=r"row 10 of data\.pretraining.*id 80"):
        check_tokens.check_part(config, Words(), examples_of(([], [1, 80])), "data.pretraining")


@pytest.mark.parametrize(
    ("algorithm", "option", "value"),
    [
        ("dpo", "model.router_balance", "0.1"),
        ("dpo", "model.router_z", "0.1"),
        ("grpo", "rollout.replay_router", "true"),
    ],
)
def test_options_of_a_router_are_refused_of_a_model_without_one(algorithm, option, value):
    config = config_of(algorithm, *of("qwen3_moe", f"--{option}", value))
    check_tokens.check_experts(config)
    config = config_of(algorithm, *of("llama", f"--{option}", value))
    with pytest.raises(ValueError, match=rf"{option}: .*llama has no experts"):
        check_tokens.check_experts(config)


def test_an_axis_of_experts_needs_experts_that_it_divides():
    dense = Spec(vocab_size=9, **SMALL)
    mixture = dataclasses.replace(dense, experts=Experts(count=6, top_k=2, width=4))
    for spec, devices in ((dense, 1), (mixture, 3)):
        assert check_tokens.check_expert_axis(spec, devices, "m") is None
    with pytest.raises(ValueError, match=r"mesh.expert=2: m has no experts; .*mesh.fsdp 2 times"):
        check_tokens.check_expert_axis(dense, 2, "m")
    with pytest.raises(ValueError, match=r"mesh.expert=4 does not divide the 6 experts of m"):
        check_tokens.check_expert_axis(mixture, 4, "m")


def test_rows_of_ids_are_checked_by_number():
    spec = Spec(vocab_size=9, context=4, **SMALL)
    assert check_rows([[8, 0, 1, 2]], spec) is None
    with pytest.raises(ValueError, match="prompt 1 has the token 'word-9' of id 9"):
        check_rows([[8], [1, 9]], spec, tokenizer=Words())
    assert "prompt 1 of 3 tokens with max_new_tokens=2" in check_rows(
        [[1], [1, 2, 3]], spec, sampled=2
    )
    assert check_length(5, Spec(vocab_size=9, **SMALL), where="", model="", remedy="") is None


@pytest.fixture(scope="module")
def model():
    """80 embeddings, and a tokenizer that makes more ids."""
    spec = Spec(vocab_size=80, context=8, **SMALL)
    return Decoder(spec, value_head=True, rngs=nnx.Rngs(0)), byte_level(bos=True)


def test_samplers_refuse_tokens_without_an_embedding(model):
    settings, key = Settings(max_new_tokens=1), jax.random.key(0)
    with pytest.raises(ValueError, match=r"id 80, but the model has 80 embeddings"):
        sample(model[0], np.array([[3, 80]]), np.array([2]), key, settings)
    with pytest.raises(ValueError, match=r"prompt 1 .*id 81"):
        respond_refilling(model[0], [np.array([1]), np.array([81])], settings, key, rows=1)


def test_judges_and_reward_models_in_process_refuse_tokens_without_an_embedding(model):
    judge = ModelJudge(*model, generate=lambda ids, **_: [""] * len(ids))
    with pytest.raises(ValueError, match="but the judge has 80 embeddings"):
        judge.complete(["zzz"], max_tokens=1, temperature=0.0)
    with pytest.raises(ValueError, match="but the judge has 80 embeddings"):
        judge.option_logps(["zzz"], ["a"])
    with pytest.raises(ValueError, match=r"response 0 .* but the reward model has 80 embeddings"):
        RewardModel(*model)(["zzz"], ["zzz"])
