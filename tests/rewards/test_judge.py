"""A model of jalign as a judge: its options are exact probabilities of token sequences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign.data.chat import Template, load_tokenizer
from jalign.data.encoder import Encoder
from jalign.models import hub
from jalign.models.decoder import Decoder
from jalign.models.spec import Spec
from jalign.rewards.judge import ModelJudge, choose
from jalign.rewards.rating import direct_score
from jalign.rewards.rlaif import labeler
from jalign.rollout.groups import respond
from jalign.rollout.sampler import Settings
from tests.data.tiny_tokenizers import CHATML, byte_level, sentence_piece
from tests.tiny_run import write_model

PROMPTS = ["hello", "the quick brown fox says: how are you? Number:", "you"]
OPTIONS = [" hello", "hello world", "1", "10", " 1", "brown", "9"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def model(folder):
    return hub.load(folder), load_tokenizer(folder)


def random_model(tokenizer, **changes):
    sizes = {"width": 16, "depth": 2, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_width": 24}
    spec = Spec(vocab_size=len(tokenizer), **sizes, **changes)
    return Decoder(spec, rngs=nnx.Rngs(0))


@nnx.jit
def log_probs(decoder, ids):
    logits = decoder.logits(decoder(ids, jnp.arange(ids.shape[1])[None])[0])
    return jax.nn.log_softmax(logits)


def by_hand(decoder, prompt, option):
    """log P of an option's tokens after a prompt's, one forward pass of both."""
    ids = np.zeros((1, 96), np.int32)
    ids[0, : len(prompt) + len(option)] = [*prompt, *option]
    logps = np.asarray(log_probs(decoder, jnp.asarray(ids)))[0]
    return sum(float(logps[len(prompt) + j - 1, token]) for j, token in enumerate(option))


def longer(option, tokens):
    """The options that go on from one; of these, none goes on to another."""
    return [t for t in tokens if len(t) > len(option) and t[: len(option)] == option]


def expected(decoder, tokenizer, prompts, options, template=None):
    """Probabilities by the definition: of an option, less those of the longer ones."""
    encoder, out = Encoder(tokenizer), []
    tokens = [tuple(ids) for ids in encoder.continuations(options)]
    for text in prompts:
        if template:
            text = template.render([{"role": "user", "content": text}], open_turn=True)
        prompt = [encoder.bos] if encoder.bos is not None else []
        prompt += tokenizer(text, add_special_tokens=False)["input_ids"]
        p = {t: math.exp(by_hand(decoder, prompt, t)) for t in tokens}
        out.append([p[t] - sum(p[u] for u in longer(t, tokens)) for t in tokens])
    return np.array(out)


@pytest.mark.parametrize("batch_size", [2, 32])
def test_options_have_the_probability_of_their_tokens_by_the_chain_rule(model, batch_size):
    decoder, tokenizer = model
    lengths = {len(ids) for ids in Encoder(tokenizer).continuations(OPTIONS)}
    assert len(lengths) > 1
    found = ModelJudge(*model, batch_size=batch_size).option_logps(PROMPTS, OPTIONS)
    np.testing.assert_allclose(
        np.exp(found), expected(decoder, tokenizer, PROMPTS, OPTIONS), rtol=2e-4
    )


@pytest.mark.parametrize(
    "tokenizer",
    [sentence_piece(), byte_level(bos=False), byte_level(bos=True)],
    ids=["sentence_piece", "bytes", "bytes_with_bos"],
)
def test_tokenizers_that_put_spaces_or_a_bos_first_are_followed(tokenizer):
    decoder = random_model(tokenizer)
    found = ModelJudge(decoder, tokenizer).option_logps(PROMPTS, ["hello", " hello", "you"])
    wanted = expected(decoder, tokenizer, PROMPTS, ["hello", " hello", "you"])
    np.testing.assert_allclose(np.exp(found), wanted, rtol=2e-4)


def test_a_ten_that_begins_with_a_one_is_told_from_it(model):
    decoder, tokenizer = model
    one, ten = Encoder(tokenizer).continuations(["1", "10"])
    assert len(ten) == 2 and ten[:1] == one
    judge = ModelJudge(*model)
    (both,), (alone,) = (judge.option_logps(["hello"], o) for o in (["1", "10"], ["1"]))
    assert math.exp(both[0]) + math.exp(both[1]) == pytest.approx(math.exp(alone[0]), rel=1e-5)
    np.testing.assert_allclose(
        np.exp(both), expected(decoder, tokenizer, ["hello"], ["1", "10"])[0], rtol=2e-4
    )


def test_a_prompt_is_the_users_turn_of_a_conversation_with_one_bos():
    tokenizer = byte_level(bos=True, chat_template="{{ bos_token }}" + CHATML)
    decoder, template = random_model(tokenizer), Template.of(tokenizer)
    judge = ModelJudge(decoder, tokenizer, template=template)
    ids = judge._encoded(["hello"])[0]
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    plain = Template.of(byte_level(bos=True, chat_template=CHATML))
    wanted = expected(decoder, tokenizer, PROMPTS, ["hello", "you"], plain)
    np.testing.assert_allclose(
        np.exp(judge.option_logps(PROMPTS, ["hello", "you"])), wanted, rtol=2e-4
    )


def test_a_prompt_without_room_has_no_answer_and_the_others_have_theirs():
    tokenizer = byte_level(bos=True)
    decoder = random_model(tokenizer, learned_positions=24)
    texts = ["hello", "you " * 30, "world"]
    judge = ModelJudge(decoder, tokenizer, generate=lambda ids, **numbers: ["text"] * len(ids))
    first, none, last = judge.option_logps(texts, ["hello", "you"])
    assert none is None and all(math.isfinite(x) for x in [*first, *last])
    wanted = expected(decoder, tokenizer, ["hello"], ["hello", "you"])[0]
    np.testing.assert_allclose(np.exp(first), wanted, rtol=2e-4)
    assert judge.complete(texts, max_tokens=4, temperature=0.0) == ["text", None, "text"]
    assert judge.complete(["hello"], max_tokens=99, temperature=0.0) == [None]


def test_writing_takes_ids_with_one_bos_and_is_refused_without_a_sampler(model):
    decoder, tokenizer = model
    split = nnx.split(decoder)

    def generate(ids, *, max_tokens, temperature):
        assert all(row[0] == tokenizer.bos_token_id for row in ids)
        eos = (tokenizer.eos_token_id,)
        settings = Settings(max_new_tokens=max_tokens, temperature=temperature, eos=eos)
        rows = [np.asarray(row) for row in ids]
        found = respond(split, rows, settings, jax.random.key(0), batch_size=2)
        return [tokenizer.decode(row[0], skip_special_tokens=True) for row in found.tokens]

    judge = ModelJudge(split, tokenizer, generate=generate)
    first, second = judge.complete(["hello", "you"], max_tokens=5, temperature=0.0)
    assert [second, first] == judge.complete(["you", "hello"], max_tokens=5, temperature=0.0)
    assert first != second
    with pytest.raises(ValueError, match="made without `generate`"):
        ModelJudge(*model).complete(["a"], max_tokens=1, temperature=0.0)


def test_a_model_labels_pairs_and_rates_responses(model):
    judge = ModelJudge(*model)
    pairs = labeler(judge).label(PROMPTS, ["one", "two", "you"], ["three", "four", "you"])
    turned = labeler(judge).label(PROMPTS, ["three", "four", "you"], ["one", "two", "you"])
    np.testing.assert_allclose(np.add(pairs.probs, turned.probs), 1, atol=1e-6)
    assert pairs.probs[2] == pytest.approx(0.5) and pairs.failed == 0
    rated = direct_score(judge, PROMPTS, ["a", "b", "c"])
    assert all(-1 < r < 1 for r in rated) and len(set(rated)) == 3


def test_options_that_are_no_texts_are_refused_and_no_prompts_have_no_answers(model):
    judge = ModelJudge(*model)
    for wrong in ([], ["1", ""]):
        with pytest.raises(ValueError, match="options must be texts"):
            judge.option_logps(["a"], wrong)
    assert judge.option_logps([], ["1"]) == []
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        ModelJudge(*model, batch_size=0)


# ---- choosing


class Given:
    """A judge with these log-probabilities."""

    def __init__(self, *rows):
        self.rows, self.asked = list(rows), []

    def option_logps(self, prompts, options):
        self.asked += [(prompt, tuple(options)) for prompt in prompts]
        return self.rows[: len(prompts)]


def test_spellings_of_an_option_add_up_and_options_sum_to_one():
    judge = Given([math.log(x) for x in (0.1, 0.2, 0.05, 0.15)])
    (found,) = choose(judge, ["a"], [(" 1", "1"), (" 2", "2")])
    np.testing.assert_allclose(found, [0.6, 0.4])
    assert judge.asked == [("a", (" 1", "1", " 2", "2"))]


def test_tiny_probabilities_and_one_that_is_zero_are_no_problem():
    (found,) = choose(Given([-2000.0, -2000.0 + math.log(3)]), ["a"], [("1",), ("2",)])
    np.testing.assert_allclose(found, [0.25, 0.75])
    (found,) = choose(Given([-math.inf, -5.0]), ["a"], [("1",), ("2",)])
    np.testing.assert_allclose(found, [0.0, 1.0])


def test_what_is_no_answer_is_none_and_what_is_not_asked_stays_none():
    rows = [None, [math.nan, 0.0], [-math.inf, -math.inf], [0.0], [0.0, 0.0]]
    judge = Given(*rows)
    found = choose(judge, [*"abc", None, *"de"], [("1",), ("2",)])
    assert [f is None for f in found] == [True, True, True, True, True, False]
    assert [prompt for prompt, _ in judge.asked] == [*"abcde"]
    assert choose(Given(), [None], [("1",), ("2",)]) == [None]
