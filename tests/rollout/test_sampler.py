import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from jalign.models import hub
from jalign.models.cache import KVCache
from jalign.models.decoder import Decoder
from jalign.models.experts import in_place
from jalign.rollout import decode_model, sampler
from jalign.rollout.sampler import Settings, sample
from jalign.rollout.text import continuation, generate
from jalign.rollout.unrolled import Unrolled, split_cache, unstack_layers
from tests.models.fixtures_of_models import GOLDEN
from tests.rollout._tiny import KEY, SPEC, tiny

PROMPTS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [7, 0, 0, 0, 0]])
LENGTHS = np.array([5, 3, 1])


@pytest.fixture(scope="module")
def model():
    return tiny()


@jax.jit
def all_logits(state, rows):
    decoder = nnx.merge(tiny()[0], state)
    return decoder.logits(decoder(rows, jnp.broadcast_to(jnp.arange(16), rows.shape))[0])


def teacher_forced(state, samples, repeats=1):
    """Logits [n, T, V] before each sampled token, by full forward passes without a cache."""
    tokens = np.asarray(samples.tokens)
    out = []
    for i, response in enumerate(tokens):
        n = LENGTHS[i // repeats]
        row = np.concatenate([PROMPTS[i // repeats, :n], response])
        padded = np.pad(row, (0, 16 - len(row)))[None]
        out.append(np.asarray(all_logits(state, padded))[0, n - 1 : n - 1 + len(response)])
    return np.stack(out)


def log_softmax(z):
    return (
        z
        - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - z.max(-1, keepdims=True)
    )


GREEDY = Settings(max_new_tokens=6, temperature=0.0)


@pytest.fixture(scope="module")
def greedy(model):
    return sample(model, PROMPTS, LENGTHS, KEY, GREEDY)


def test_greedy_takes_the_argmax_of_a_full_forward_pass_at_every_step(model, greedy):
    want = teacher_forced(model[1], greedy).argmax(-1)
    np.testing.assert_array_equal(greedy.tokens, want)
    assert len(set(np.asarray(greedy.tokens).ravel().tolist())) > 4
    assert greedy.mask.all() and not greedy.finished.any()


@pytest.mark.parametrize("cuts", [{}, {"top_k": 4, "top_p": 0.8}])
def test_logps_are_those_of_the_distribution_sampled_from(model, cuts):
    settings = Settings(max_new_tokens=6, temperature=0.7, responses=2, **cuts)
    samples = sample(model, PROMPTS, LENGTHS, KEY, settings)
    z = teacher_forced(model[1], samples, repeats=2) / 0.7
    if cuts:
        z = np.where(z >= -np.sort(-z, -1)[..., 3:4], z, -np.inf)
        p = np.exp(log_softmax(z))
        top = -np.sort(-p, -1)
        count = (np.cumsum(top, -1) < 0.8).sum(-1, keepdims=True)
        z = np.where(p >= np.take_along_axis(top, count, -1), z, -np.inf)
    want = np.take_along_axis(log_softmax(z), np.asarray(samples.tokens)[..., None], -1)[..., 0]
    np.testing.assert_allclose(samples.token_logps, want, atol=2e-5)
    assert (np.asarray(samples.token_logps) < 0).any()


def test_every_prompt_gets_its_responses_and_they_differ(model, greedy):
    both = sample(model, PROMPTS, LENGTHS, KEY, Settings(6, temperature=0.0, responses=2))
    np.testing.assert_array_equal(both.tokens, np.repeat(greedy.tokens, 2, 0))
    hot = sample(model, PROMPTS, LENGTHS, KEY, Settings(6, temperature=3.0, responses=2)).tokens
    assert (hot[0] != hot[1]).any() and hot.shape == (6, 6)


def test_a_response_ends_with_its_eos_and_the_loop_when_all_have_ended(model, greedy):
    told = np.asarray(greedy.tokens)
    eos = (int(told[0, 2]), int(told[1, 4]))
    stopped = sample(model, PROMPTS, LENGTHS, KEY, Settings(6, temperature=0.0, eos=eos))
    ends = [[*np.flatnonzero(np.isin(row, eos)).tolist(), 99] for row in told]
    lengths = np.array([min(e[0] + 1, 6) for e in ends])
    mask = np.arange(6) < lengths[:, None]
    np.testing.assert_array_equal(stopped.mask, mask)
    np.testing.assert_array_equal(stopped.tokens, np.where(mask, told, 0))
    np.testing.assert_array_equal(stopped.finished, [e[0] < 6 for e in ends])
    assert lengths[0] <= 3
    assert (np.asarray(stopped.token_logps)[~mask] == 0).all()


def test_what_stands_in_the_padding_does_not_matter(model, greedy):
    noisy = np.where(np.arange(5) < LENGTHS[:, None], PROMPTS, 11)
    wide = np.pad(noisy, ((0, 0), (0, 40)), constant_values=13)
    for prompts in (noisy, wide):
        other = sample(model, prompts, LENGTHS, KEY, GREEDY)
        np.testing.assert_array_equal(other.tokens, greedy.tokens)


def test_the_key_decides(model):
    settings = Settings(6, temperature=3.0, responses=2)
    one, same, other = (
        np.asarray(sample(model, PROMPTS, LENGTHS, jax.random.key(i), settings).tokens)
        for i in (1, 1, 2)
    )
    assert (one == same).all() and (one != other).any()


def test_new_parameters_change_the_samples_without_compiling_again(model, greedy):
    programs = sampler._sample._cache_size()
    other = sample(tiny(seed=1), PROMPTS, LENGTHS, KEY, GREEDY)
    assert sampler._sample._cache_size() == programs
    assert (np.asarray(other.tokens) != np.asarray(greedy.tokens)).any()


def test_a_module_and_its_split_give_the_same(model, greedy):
    again = sample(nnx.merge(*model), PROMPTS, LENGTHS, KEY, GREEDY)
    np.testing.assert_array_equal(again.tokens, greedy.tokens)


@pytest.mark.parametrize("transposed", [False, True])
def test_layers_taken_apart_are_the_same_function(model, transposed):
    prompts, positions = jnp.asarray(PROMPTS), jnp.broadcast_to(jnp.arange(5), (3, 5))
    token, place = jnp.array([[1], [2], [3]]), jnp.array([[5], [3], [1]])

    @jax.jit
    def both(state):
        decoder = nnx.merge(model[0], state)
        _, cache = decoder(prompts, positions, cache=KVCache.empty(SPEC, 3, 8, jnp.float32))
        parts, apart = (
            split_cache(cache, SPEC),
            Unrolled(decoder, unstack_layers(decoder, transposed=transposed)),
        )
        return decoder(token, place, cache=cache), apart(token, place, cache=parts)

    (want, after), (got, parts) = both(model[1])
    np.testing.assert_allclose(got, want, atol=1e-5)
    for i, part in enumerate(parts.kv):
        np.testing.assert_allclose(part.k[0], after.kv.k[i], atol=1e-5)
        np.testing.assert_allclose(part.v[0], after.kv.v[i], atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_one_row_and_many_give_the_same_logits(tied):  # their weights are laid out differently
    decoder = nnx.merge(*tiny(spec=dataclasses.replace(SPEC, tied=tied)))
    hidden = jax.random.normal(KEY, (5, SPEC.width))
    one, many = (
        decode_model.decode_model(decode_model.for_sampling(decoder, rows)) for rows in (1, 5)
    )
    assert one.head.shape == many.head.shape[::-1] == (SPEC.width, SPEC.vocab_size)
    np.testing.assert_allclose(one.logits(hidden), many.logits(hidden), atol=1e-5)
    np.testing.assert_allclose(many.logits(hidden), decoder.logits(hidden), atol=1e-5)


@pytest.mark.parametrize("cache_by_layer", [False, True], ids=["gpu", "tpu"])
def test_stacked_layers_sample_the_same(model, greedy, cache_by_layer, monkeypatch):
    monkeypatch.setattr(decode_model, "_layer_by_layer", lambda *_: cache_by_layer)
    sampler._sample.clear_cache()
    whole = dataclasses.replace(decode_model.for_sampling(model, 3), layers=None)
    padded = np.pad(PROMPTS, ((0, 0), (0, 27)))
    other = sampler._sample((whole,), padded, LENGTHS, KEY, GREEDY)
    sampler._sample.clear_cache()
    np.testing.assert_array_equal(other.tokens, greedy.tokens)


@pytest.mark.parametrize("name", ["gemma2", "mixtral", "qwen3_5"])
def test_stacked_layers_with_caches_of_their_own_are_the_same_function(name, monkeypatch):
    """Layers of two kinds, experts that are read in their stack, layers without attention."""
    monkeypatch.setattr(in_place, "PLATFORMS", ("cpu",))
    decoder = hub.load(GOLDEN / name)
    in_place.set_frozen(decoder)
    graphdef, state = nnx.split(decoder)
    positions = jnp.broadcast_to(jnp.arange(5), (3, 5))
    token, place = jnp.array([[1], [2], [3]]), jnp.array([[5], [5], [5]])

    @jax.jit
    def both(state):
        decoder = nnx.merge(graphdef, state)
        _, cache = decoder(jnp.asarray(PROMPTS), positions, cache=decoder.empty_cache(3, 8))
        apart, parts = Unrolled(decoder, None), split_cache(cache, decoder.spec)
        (want, _), (got, parts) = (
            decoder(token, place, cache=cache),
            apart(token, place, cache=parts),
        )
        (again, _) = apart(token, place + 1, cache=parts)
        return want, got, again

    want, got, again = both(state)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(again - got).max() > 1e-3


def test_a_mixture_draws_from_the_normalised_product_of_powers(model):
    other = tiny(seed=1)
    settings = Settings(max_new_tokens=6, temperature=0.7, responses=2, mixture=0.25)
    samples = sample(model, PROMPTS, LENGTHS, KEY, settings, other=other)
    a, b = (log_softmax(teacher_forced(m[1], samples, repeats=2)) for m in (model, other))
    want = log_softmax((0.75 * a + 0.25 * b) / 0.7)
    picked = np.take_along_axis(want, np.asarray(samples.tokens)[..., None], -1)[..., 0]
    np.testing.assert_allclose(samples.token_logps, picked, atol=2e-5)


def test_a_mixture_of_a_model_with_itself_is_the_model(model, greedy):
    settings = dataclasses.replace(GREEDY, mixture=0.3)
    same = sample(model, PROMPTS, LENGTHS, KEY, settings, other=model)
    np.testing.assert_array_equal(same.tokens, greedy.tokens)


def test_a_second_model_and_a_mixture_need_each_other(model):
    with pytest.raises(ValueError, match="mixture"):
        sample(model, PROMPTS, LENGTHS, KEY, GREEDY, other=model)
    with pytest.raises(ValueError, match="second model"):
        sample(model, PROMPTS, LENGTHS, KEY, dataclasses.replace(GREEDY, mixture=0.5))


def test_a_large_penalty_lets_no_token_of_prompt_or_response_come_again(model):
    settings = Settings(max_new_tokens=6, temperature=0.0, repetition_penalty=1e6)
    samples = sample(model, PROMPTS, LENGTHS, KEY, settings)
    z = teacher_forced(model[1], samples)
    for i, tokens in enumerate(np.asarray(samples.tokens)):
        before = set(PROMPTS[i, : LENGTHS[i]].tolist())
        for step, token in enumerate(tokens.tolist()):
            # a seen token's positive logit falls to nearly 0, a negative one far below all others
            seen = np.isin(np.arange(23), list(before))
            punished = np.where(seen, np.where(z[i, step] > 0, 0, -np.inf), z[i, step])
            assert punished[token] >= punished.max() - 1e-4
            before.add(token)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"min_p": 1.0}, r"min_p must be in \[0, 1\)"),
        ({"mixture": 1.5}, r"mixture must be in \[0, 1\]"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be > 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"responses": 0}, "responses must be at least 1"),
        ({"temperature": -0.1}, "temperature must be at least 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_prompts_that_cannot_be_are_refused(model):
    with pytest.raises(ValueError, match=r"\[B, P\] and lengths \[B\]"):
        inspect.unwrap(sample)(model, PROMPTS[0], LENGTHS, KEY, GREEDY)  # without the import hook
    for lengths in ([0, 1, 1], [6, 1, 1]):
        with pytest.raises(ValueError, match=r"must be in \[1, 5\]"):
            sample(model, PROMPTS, np.array(lengths), KEY, GREEDY)


def test_more_tokens_than_learned_positions_are_refused():
    spec = dataclasses.replace(SPEC, rope=None, learned_positions=10)
    with pytest.raises(ValueError, match=r"5 tokens with .* takes 11 .* 10 positions"):
        sample(tiny(spec=spec), PROMPTS, LENGTHS, KEY, GREEDY)


WORDS = ["<bos>", *"abcdefghijklmnopqrstuv"]


def words_with_bos():
    """Word-level; like SentencePiece it drops the space before a text's first word."""
    vocab = {("" if w[0] == "<" else "\u2581") + w: i for i, w in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="\u2581a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "<bos> $A", special_tokens=[("<bos>", 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>")


def test_generate_continues_every_text_in_the_order_given(model):
    tokenizer = words_with_bos()
    texts = ["c a d a e", "i", "g b", "f f f"]
    settings = Settings(4, temperature=0.0, responses=2)
    out = generate(model, tokenizer, texts, settings, KEY, batch_size=3)
    assert len(out) == 8
    for i, text in enumerate(texts):
        ids = np.array([tokenizer(text)["input_ids"]])
        assert ids[0, 0] == 0
        alone = sample(model, ids, np.array([ids.shape[1]]), KEY, Settings(4, temperature=0.0))
        want = " " + tokenizer.decode(
            np.asarray(alone.tokens)[0].tolist(), skip_special_tokens=True
        )
        assert out[2 * i] == out[2 * i + 1] == want


def test_a_continuation_keeps_the_space_it_starts_with():
    assert continuation(words_with_bos(), [0, 1, 2], [3, 4]) == " c d"


def test_a_grouped_bfloat16_model_samples_several_rows_on_cpu():
    model = Decoder(SPEC, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    settings = Settings(max_new_tokens=3, temperature=1.0)
    lengths = np.array([5, 3, 1], np.int32)
    out = sample(model, PROMPTS, lengths, jax.random.key(0), settings)
    assert out.mask.all() and np.isfinite(out.token_logps).all()
