"""Distillation on the student's own samples: rewards of tokens, and what a teacher reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign import algorithms, losses
from jalign.config import Config, DataConfig, ModelConfig, RolloutConfig
from jalign.config.build import options_of
from jalign.core import Frozen
from jalign.data.examples import Example, Examples, Report
from jalign.experience import reverse_kl, self_distilled, weighted_reverse_kl
from jalign.models import hub
from jalign.models.functional import functional
from jalign.options.rollout import column_of
from jalign.parallel.mesh import make_mesh
from jalign.rollout.text import decode
from jalign.rollout.types import Rollout
from jalign.run.prompts import PromptTable
from jalign.run.teacher import teacher_prompts
from jalign.train.micro_batches import MicroBatchPacker
from jalign.train.scoring import ResponseScorer
from jalign.train.teacher import Teacher
from tests.data.tiny_tokenizers import CHATML, byte_level
from tests.tiny_run import write_model

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
OLD = A([[-1.0, -2.0, -0.5, 9.0]], [[-0.25, -3.0, 9.0, 9.0]])
TEACHER = A([[-1.5, -0.5, -0.75, 9.0]], [[-0.5, -1.0, 9.0, 9.0]])
MASK = jnp.array([[[True, True, True, False]], [[True, True, False, False]]])
VALID = jnp.array([[True], [True]])


def test_the_reward_of_a_token_is_how_much_more_likely_the_teacher_finds_it():
    fields = reverse_kl(OLD, TEACHER, VALID, MASK)
    expected = [[[-0.5, 1.5, -0.25, 0]], [[-0.25, 2, 0, 0]]]
    np.testing.assert_allclose(fields["advantages"], expected)
    other = self_distilled(OLD, TEACHER, VALID, MASK)
    np.testing.assert_array_equal(other["advantages"], fields["advantages"])


def test_later_tokens_weigh_less_by_the_difference_before_them():
    fields = weighted_reverse_kl(OLD, TEACHER, VALID, MASK, prefix_gamma=2.0)
    weights = [[[3, 3 - 2 * 0.5 / 2.25, 3 - 2 * 2 / 2.25, 0]], [[3, 3 - 2 * 0.25 / 2.25, 0, 0]]]
    plain = reverse_kl(OLD, TEACHER, VALID, MASK)["advantages"]
    np.testing.assert_allclose(fields["advantages"], plain * np.array(weights), rtol=1e-6)
    none = weighted_reverse_kl(OLD, TEACHER, VALID, MASK, prefix_gamma=0.0)
    np.testing.assert_allclose(none["advantages"], plain)
    with pytest.raises(ValueError, match="prefix_gamma"):
        weighted_reverse_kl(OLD, TEACHER, VALID, MASK, prefix_gamma=-0.1)


def test_iw_opd_is_trls():
    """Value and gradient of the loss of TRL 1.16's IWOPDTrainer on these logits, gamma 0.5."""
    logits = A(
        [[0.1, 0.9, -0.4], [1.2, -0.3, 0.5], [-0.7, 0.2, 0.6], [0, 0.4, 0.8]],
        [[0.3, -0.2, 0.1], [0.6, 0.7, -0.9], [0.2, 0.1, 0.4], [0, 0, 0]],
    )
    tokens = jnp.array([[1, 0, 2, 1], [0, 2, 1, 0]])[..., None]
    teacher = A([-1.3, -0.2, -2.5, -0.9], [-0.4, -3, -0.6, 0])
    mask = jnp.ones((2, 4), bool).at[1, 3].set(False)

    def loss(logits):
        logps = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens, -1)[..., 0]
        old, ref = jax.lax.stop_gradient(logps)[:, None], teacher[:, None]
        fields = weighted_reverse_kl(old, ref, VALID, mask[:, None])
        return losses.reinforce(logps, fields["advantages"][:, 0], mask)[0].sum() / mask.sum()

    value, gradient = jax.value_and_grad(loss)(logits)
    np.testing.assert_allclose(value, -0.31299642, rtol=1e-5)
    np.testing.assert_allclose(gradient[0, 0], [-0.04230803, 0.06796914, -0.02566111], rtol=1e-4)
    np.testing.assert_allclose(gradient[1, 2], [0.03449079, -0.07661795, 0.04212715], rtol=1e-4)
    assert not gradient[1, 3].any()


@pytest.mark.parametrize("name", ["opd", "iw_opd"])
def test_a_teacher_is_another_model(name):
    assert algorithms.get(name).needs_teacher
    with pytest.raises(ValueError, match="learns from a teacher"):
        options_of(Config(algorithm={"name": name}, steps=1))


# ---- the teacher's prompt

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2 {?}"}]


def options(name="sdft", **rollout):
    return options_of(
        Config(
            algorithm={"name": name},
            steps=1,
            rollout=RolloutConfig(**rollout),
            model=ModelConfig(path="embedded"),
            data=DataConfig(max_prompt_len=8),
        )
    )


def read(rows, name="sdft", **rollout):
    """What the teacher reads, as text."""
    tokenizer = byte_level(chat_template=CHATML)
    table = PromptTable.of_rows(rows, tokenizer)
    examples = teacher_prompts(options(name, **rollout), table)
    return [decode(tokenizer, examples.segments(i)[0], special=True) for i in range(len(rows))]


def test_the_teacher_reads_the_prompt_with_the_column_of_its_row():
    rows = [
        {"prompt": "hello", "demonstration": "world {braces}"},
        {"prompt": "how", "demonstration": [{"role": "assistant", "content": "so"}]},
    ]
    first, second = read(rows)
    assert first.startswith("hello\n\n") and "world {braces}\n\n" in first
    assert second.startswith("how\n\n") and "\nso\n" in second
    feedback = [{"prompt": "hello", "feedback": "too long"}]
    assert "feedback on an earlier attempt:\ntoo long" in read(feedback, "sdpo_feedback")[0]


def test_of_a_chat_the_last_message_gets_the_column_and_nothing_is_cut():
    (text,) = read(
        [{"prompt": CHAT, "hint": "four"}], teacher_prompt="{prompt} ({hint}, says a friend)"
    )
    assert "Be brief." in text and "2 + 2 {?} (four, says a friend)" in text
    assert text.count("<|im_start|>") == 3


@pytest.mark.parametrize("row", [{"prompt": "hello"}, {"prompt": "hello", "demonstration": " "}])
def test_a_prompt_without_a_demonstration_is_an_error(row):
    why = "is missing from" if len(row) == 1 else "is empty in"
    with pytest.raises(ValueError, match=f"sdft: the column 'demonstration', .* {why} the data"):
        read([row])


@pytest.mark.parametrize("template", ["{prompt}", "{hint}", "{prompt} {a} {b}", "{prompt} {0}"])
def test_a_teacher_prompt_names_the_prompt_and_one_column(template):
    with pytest.raises(ValueError, match=r"rollout.teacher_prompt needs \{prompt\} and one column"):
        column_of(template)


def test_a_teacher_prompt_is_refused_where_no_teacher_reads_it():
    with pytest.raises(ValueError, match=r"teacher_prompt does not apply to grpo"):
        options("grpo", teacher_prompt="{prompt} {hint}")


def test_the_teacher_scores_the_same_response_after_its_own_prompt(tmp_path):
    apply, params, base = functional(hub.load(write_model(tmp_path)), nnx.Param)
    mesh = make_mesh(devices=jax.devices()[:1])
    scorer = ResponseScorer(apply, 1.0, MicroBatchPacker(mesh, 8, 4, 64, 8))
    own, others = ([np.array(x) for x in ids] for ids in (([5], [7, 8]), ([9, 6, 5], [4])))
    answers = [[[11, 12, 2]], [[13, 2]]]
    rollout = Rollout.from_lists(own, answers).padded_to(4)
    examples = Examples.from_list([Example(ids, (), (), {}) for ids in others], Report())
    frozen = Frozen(base, params)
    found = Teacher(examples, scorer)([0, 1], rollout, params, frozen)
    there = rollout._replace(prompts=others)
    expected = scorer(there, ("old_token_logps",), params, frozen)["old_token_logps"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    before = scorer(rollout, ("old_token_logps",), params, frozen)["old_token_logps"]
    assert abs(found - before)[rollout.mask].min() > 1e-4
