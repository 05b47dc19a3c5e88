"""Checklists: the text that questions share is read once, and the answers are the same."""

from contextlib import nullcontext

import jax
import numpy as np
import pytest

from jalign.data.chat import load_tokenizer
from jalign.models import hub
from jalign.options import JudgeConfig
from jalign.parallel.mesh import make_mesh
from jalign.rewards import shared_prefix
from jalign.rewards.judge import ModelJudge
from jalign.rewards.rubric import Rubric
from tests.tiny_run import write_model

QUESTIONS = {"Is it right?": 2.0, "Is it rude or unkind to anybody?": -1.0, "Is it short?": 0.5}


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("judge"))
    return ModelJudge(hub.load(folder), load_tokenizer(folder))


def test_prompts_of_a_group_have_the_log_probs_they_have_alone(judge):
    groups = [["the quick fox: a", "the quick fox: how", "the quick fox"], ["you"]]
    options = ["yes", "no", " yes", "1", "10"]
    grouped = judge.grouped_option_logps(groups, options)
    for prompts, got in zip(groups, grouped, strict=True):
        np.testing.assert_allclose(got, judge.option_logps(prompts, options), atol=2e-4)


def groups_of(counts):
    """Groups of so many rows each, of many lengths."""
    draw = np.random.default_rng(0).integers

    def row(text):
        nexts = [int(x) for x in draw(3, 90, size=draw(1, 4))]
        return (*text, *(int(x) for x in draw(3, 90, size=draw(1, 9)))), nexts

    texts = [tuple(int(x) for x in draw(3, 90, size=draw(1, 40))) for _ in counts]
    return [[row(text) for _ in range(k)] for text, k in zip(texts, counts, strict=True)]


@pytest.mark.parametrize("sizes", [{}, {"fsdp": 8}, {"fsdp": 4, "tensor": 2}])
def test_groups_share_calls_and_have_the_log_probs_of_a_call_for_each(sizes, tmp_path):
    """With 4 rows at most, a call has 32 // 4 groups, and a multiple of the shards of a batch."""
    groups, folder = groups_of([4, 4, 1, 2, 4, 3, 4, 4, 4, 4, 2]), write_model(tmp_path)
    alone = ModelJudge(hub.load(folder), load_tokenizer(folder))
    expected = [shared_prefix.next_logps([group], alone._scored)[0] for group in groups]
    mesh, streams = make_mesh(**sizes) if sizes else None, []
    judge = ModelJudge(hub.load(folder, mesh=mesh), load_tokenizer(folder))

    def score(layout):
        streams.append(len(layout.tokens))
        return judge._scored(layout)

    with jax.set_mesh(mesh) if mesh else nullcontext():
        got = shared_prefix.next_logps(groups, score, rows=32)
    for one, other in zip(got, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    assert streams == ([8, 8] if sizes == {"fsdp": 8} else [8, 4] if sizes else [8, 3])


def test_the_shared_text_is_stored_once():
    text = tuple(range(3, 43))
    group = [((*text, 50, 51), [1, 2]), ((*text, 60), [1, 2]), ((*text, 70, 71, 72), [1, 2])]
    assert shared_prefix.common_prefix([ids for ids, _ in group]) == 40
    layout = shared_prefix._batch([shared_prefix._example(group)], 1).layout
    assert (layout.tokens > 0).sum() == 40 + (2 + 2) + (1 + 2) + (3 + 2)
    # both next tokens of a row follow its own last token
    at = [[int(x) for x in layout.tokens[0, layout.before[0, s]]] for s in layout.slots[0, 0]]
    assert at == [[51, 51], [60, 60], [72, 72]]


def test_a_rubric_weighs_the_probabilities_of_yes(judge):
    rubric = Rubric(judge, questions=QUESTIONS)
    texts = ["p", "the quick fox"], ["hello", "how are you?"]
    p = np.array(rubric.probabilities(*texts))
    assert p.shape == (2, 3) and (p > 0).all() and (p < 1).all()
    np.testing.assert_allclose(rubric(*texts), (2 * p[:, 0] - p[:, 1] + 0.5 * p[:, 2]) / 3.5)


@pytest.mark.parametrize(
    ("questions", "why"),
    [
        ({}, "questions must be weights by question"),
        (["Is it right?"], "questions must be weights by question"),
        ({"Is it right?": 0}, "must be a number other than 0, got 0"),
        ({"Is it right?": "high"}, "must be a number other than 0, got 'high'"),
        ({" ": 1.0}, "a question must be a text"),
    ],
)
def test_bad_questions_are_refused(judge, questions, why):
    with pytest.raises(ValueError, match=why):
        Rubric(judge, questions=questions)


def test_a_rubric_without_questions_is_refused_before_a_judge_is_loaded():
    with pytest.raises(ValueError, match=r"reward\.judge\.ask: rubric needs options"):
        JudgeConfig(ask="rubric", model="m")
