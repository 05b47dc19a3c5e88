"""A reward model says of texts what training saw of their tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign.data.batch_spec import BatchSpec
from jalign.data.pipeline import Batches
from jalign.data.records import Record
from jalign.data.tokenize import tokenize
from jalign.formats import LISTS
from jalign.models import hub
from jalign.models.decoder import Decoder
from jalign.models.score import score
from jalign.models.spec import Spec
from jalign.rewards.model import REWARD_FILE, RewardModel, _rounded
from jalign.run.best_of_n import best_first
from tests.data.tiny_tokenizers import CHATML, byte_level
from tests.tiny_run import WORDS, write_model

PROMPTS = ["hello", "", "the quick brown fox", "how are you", "the fox", "you", "hello world"]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level(bos=True, chat_template=CHATML)


@pytest.fixture(scope="module")
def decoder(tokenizer):
    sizes = {"width": 16, "depth": 2, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_width": 24}
    spec = Spec(vocab_size=len(tokenizer), **sizes)
    return Decoder(spec, value_head=True, rngs=nnx.Rngs(0))


def texts(n=3, longest=9):
    """n responses of ragged lengths to each prompt."""
    rng = np.random.default_rng(1)
    return [
        [" " + " ".join(rng.choice(WORDS, rng.integers(1, longest))) for _ in range(n)]
        for _ in PROMPTS
    ]


def in_training(decoder, tokenizer, prompts, responses, layout, **limits):
    """[prompts, K] scores as the losses of lists get them."""
    records = [Record(p, r, {}) for p, r in zip(prompts, responses, strict=True)]
    examples = tokenize(records, tokenizer, **limits)
    batches = Batches(examples, BatchSpec(len(examples), layout=layout, max_tokens=256))
    out = np.zeros((len(examples), len(responses[0])))

    @jax.jit
    def run(b):
        scores = score(decoder, b.layout, ("scores",))["scores"]
        return LISTS.view({"scores": scores.reshape(b.mask.shape)}, b)["scores"]

    for part in next(batches.eval_batches()):
        for i in range(int(part.count)):
            b = part.micro_batch(i)
            here = b.extras["index"] >= 0
            out[b.extras["index"][here]] = np.asarray(run(b))[here]
    return out


def flat(prompts, responses):
    pairs = [(p, text) for p, r in zip(prompts, responses, strict=True) for text in r]
    return [p for p, _ in pairs], [text for _, text in pairs]


def by_hand(decoder, ids):
    """What the head says of the last of these tokens."""
    ids = jnp.array([ids])
    hidden, _ = decoder(ids, jnp.arange(ids.shape[1])[None])
    return float(decoder.value(hidden)[0, -1])


def test_rewards_are_the_scores_of_training(decoder, tokenizer):
    expected = in_training(decoder, tokenizer, PROMPTS, texts(), "flat")
    assert np.abs(expected).std() > 0.1
    for batch_size in (1, 4, 32):
        model = RewardModel(decoder, tokenizer, batch_size=batch_size)
        found = model(*flat(PROMPTS, texts()))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.ravel(), rtol=1e-4, atol=1e-5)


def test_texts_over_the_limits_are_cut_as_in_training(decoder, tokenizer):
    limits = {"max_prompt_len": 3, "max_response_len": 4}
    expected = in_training(decoder, tokenizer, PROMPTS, texts(), "padded", **limits)
    found = RewardModel(decoder, tokenizer, **limits)(*flat(PROMPTS, texts()))
    np.testing.assert_allclose(found, expected.ravel(), rtol=1e-4, atol=1e-5)
    uncut = RewardModel(decoder, tokenizer)(*flat(PROMPTS, texts()))
    assert not np.allclose(found, uncut, atol=1e-3)


def test_the_reward_is_read_at_the_eos(decoder, tokenizer):
    ids = [
        *tokenizer("hello")["input_ids"],
        *tokenizer(" you", add_special_tokens=False)["input_ids"],
    ]
    expected = by_hand(decoder, [*ids, tokenizer.eos_token_id])
    np.testing.assert_allclose(
        RewardModel(decoder, tokenizer)(["hello"], [" you"]), expected, rtol=1e-4
    )
    shifted = RewardModel(decoder, tokenizer, bias=2.5)(["hello"], [" you"])
    np.testing.assert_allclose(shifted, expected + 2.5, rtol=1e-4)


def test_empty_responses_get_minus_infinity_and_no_texts_no_rewards(decoder, tokenizer):
    model = RewardModel(decoder, tokenizer)
    found = model(["hello", "hello", "hello"], ["", " you", " \n"])
    assert np.isneginf(found[[0, 2]]).all() and np.isfinite(found[1])
    np.testing.assert_array_equal(found[1], model(["hello"], [" you"])[0])
    assert model([], []).shape == (0,)


def test_a_sampled_response_that_is_empty_has_the_reward_of_its_eos(decoder, tokenizer):
    model = RewardModel(decoder, tokenizer)
    found = model.of_sampled(["hello", "you", "hello", "the fox"], ["", " you", " \n", ""])
    eos = tokenizer.eos_token_id
    for i, prompt in ((0, "hello"), (2, "hello"), (3, "the fox")):
        expected = by_hand(decoder, [*tokenizer(prompt)["input_ids"], eos])
        np.testing.assert_allclose(found[i], expected, rtol=1e-4)
    np.testing.assert_array_equal(found[1], model(["you"], [" you"])[0])
    chat = [{"role": "user", "content": "hello"}]
    said = model.of_sampled([chat], [""])
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert np.isfinite(said).all()
    (example,) = model.tokenized([Record(chat, [[{"role": "assistant", "content": "a"}]], {})])
    expected = by_hand(decoder, [*example.prompt.tolist(), int(example.responses[0][-1])])
    np.testing.assert_allclose(said, expected, rtol=1e-4)
    assert tokenizer.decode(example.prompt).endswith(text)
    assert np.isfinite(model.of_sampled([""], [""])).all()  # after the BOS


def test_messages_get_the_chat_template_of_the_tokenizer(decoder, tokenizer):
    asked = [{"role": "user", "content": "how are you"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids += tokenizer("quick<|im_end|>", add_special_tokens=False)["input_ids"]
    expected = by_hand(decoder, ids)  # a BOS only where the template writes one
    model = RewardModel(decoder, tokenizer)
    found = model([asked, "hello"], ["quick", " you"])
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)
    np.testing.assert_allclose(found[1], model(["hello"], [" you"])[0], rtol=1e-5)


def test_lengths_come_in_few_shapes():
    lengths = [_rounded(n, 32) for n in range(1, 2049)]
    assert sorted(set(lengths)) == [32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048]
    assert all(n <= rounded for n, rounded in enumerate(lengths, 1))
    assert [_rounded(n, 1) for n in (1, 2, 3, 4, 5, 6, 7)] == [1, 2, 3, 4, 6, 6, 8]


class ByLength:
    """The longer, the better; 13 characters are the best."""

    def __call__(self, prompts, responses):
        assert len(prompts) == len(responses)
        rewards = [-np.inf if not r.strip() else 1e3 if len(r) == 13 else len(r) for r in responses]
        return np.array(rewards, np.float32)


def test_best_of_picks_the_argmax_and_keeps_the_others_behind_it():
    rows = [
        {"prompt": "a", "responses": ["xx", "x" * 13, "", "x" * 14]},
        {"prompt": "b", "responses": ["", " "]},
        {"prompt": "c", "responses": ["one", "two"]},
    ]
    first, none, tie = best_first(rows, ByLength())
    assert first["responses"] == ["x" * 13, "x" * 14, "xx"]
    assert first["rewards"] == [1000.0, 14.0, 2.0] and first["reward"] == 1000.0
    assert none == {"prompt": "b", "responses": [], "rewards": [], "reward": None}
    assert tie["responses"] == ["one", "two"]


def test_best_of_the_model_itself_is_its_argmax(decoder, tokenizer):
    model = RewardModel(decoder, tokenizer)
    rows = [{"prompt": p, "responses": r} for p, r in zip(PROMPTS, texts(), strict=True)]
    scores = model(*flat(PROMPTS, texts())).reshape(len(PROMPTS), -1)
    for row, responses, mine in zip(best_first(rows, model), texts(), scores, strict=True):
        assert row["responses"][0] == responses[int(mine.argmax())]
        np.testing.assert_allclose(row["reward"], mine.max(), rtol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A language model and a reward model with a bias, in Hugging Face's format."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "lm")
    for name, heads in (("reward", 1), ("several", 3)):
        model = hub.load(folder / "lm", value_head=heads)
        hub.save(model, folder / name, folder / "lm")
    return folder


def test_a_folder_is_loaded_with_what_stands_beside_it(folder):
    plain = RewardModel.load(folder / "reward")(["hello"], [" you fox"])
    (folder / "reward" / REWARD_FILE).write_text('{"gain": 9, "bias": 0.5, "max_response_len": 2}')
    model = RewardModel.load(folder / "reward")
    cut = RewardModel.load(folder / "reward", bias=0.0)(["hello"], [" you fox"])
    assert cut != plain
    np.testing.assert_allclose(model(["hello"], [" you fox"]), cut + 0.5, rtol=1e-5)
    (folder / "reward" / REWARD_FILE).write_text('{"bias": "much"}')
    with pytest.raises(ValueError, match=r"reward.json must be an object of numbers: .*much"):
        RewardModel.load(folder / "reward")


def test_what_is_no_reward_model_is_refused(folder, tokenizer):
    with pytest.raises(
        ValueError, match=r"lm is no reward model: its weights have no score.weight"
    ):
        RewardModel.load(folder / "lm")
    with pytest.raises(ValueError, match="the head of this model gives 3"):
        RewardModel.load(folder / "several")
    with pytest.raises(ValueError, match="this model has none"):
        RewardModel(hub.load(folder / "lm"), tokenizer)


def test_prompts_and_responses_must_be_as_many(decoder, tokenizer):
    with pytest.raises(ValueError, match="1 prompts and 2 responses"):
        RewardModel(decoder, tokenizer)(["a"], ["b", "c"])
