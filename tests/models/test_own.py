"""A module of one's own in the place of a decoder: the same weights give the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jalign
from jalign.models.own import OwnDecoder
from jalign.rollout.refill import respond_refilling
from jalign.rollout.sampler import Settings
from jalign.train.exit_code import ExitCode

PAIRS = [
    {"prompt": "The cat", "chosen": " sat on the mat.", "rejected": " ran."},
    {"prompt": "Tom", "chosen": " was sad.", "rejected": " had a ball and a big red kite."},
]


def hidden(decoder, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return decoder(tokens, positions)[0]


def unembedding(decoder):
    weight, vocab_axis = decoder.head()
    return weight if vocab_axis == 1 else weight.T


@pytest.fixture(scope="module")
def policies():
    """The embedded model as it is, and as a module that jalign knows nothing of."""
    known = jalign.load("embedded")
    spec = known.decoder.spec
    own = jalign.Policy.of_module(
        nnx.merge(*nnx.split(known.decoder)), known.tokenizer, hidden=hidden,
        unembedding=unembedding, vocab_size=spec.vocab_size, width=spec.width,
    )  # fmt: skip
    return known, own


def test_log_probs_and_greedy_samples_are_those_of_the_decoder(policies):
    scores = [jalign.score(policy, PAIRS).logps for policy in policies]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
    prompts = ["Once upon a time there was", "Tom"]
    texts = [policy.generate(prompts, max_new_tokens=6, chat=False) for policy in policies]
    assert texts[0] == texts[1] and len(texts[0]) == 2


def test_refilled_rows_hold_its_tokens_as_they_hold_keys(policies):
    settings = Settings(max_new_tokens=5, temperature=0.0, responses=1)
    out = []
    for policy in policies:
        prompts = [
            np.array(policy.tokenizer(text)["input_ids"]) for text in ("Tom saw", "A", "Ben")
        ]
        key = jax.random.key(0)
        out.append(respond_refilling(policy.weights, prompts, settings, key, rows=2).tokens)
    np.testing.assert_array_equal(*out)


def test_dpo_takes_the_same_step(policies):
    moved = []
    for policy in policies:
        run = jalign.offline("dpo", policy, PAIRS, holdout=0, batch_size=2)
        assert run.fit(1, optax.sgd(1.0), console=None, log_every=1) == ExitCode.OK
        record = run.record[0]
        moved.append((record["loss"], record["grad_norm"], record["logps/chosen"]))
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-4)


def test_it_samples_and_learns_online(policies):
    _, own = policies
    count = lambda prompts, responses: [float(len(text)) for text in responses]  # noqa: E731
    run = jalign.online(
        "rloo", own, ["Tom", "The cat"], {"count": count}, max_new_tokens=4, batch_size=2, holdout=0
    )
    before = jax.tree.map(np.asarray, run.setup.roles.params)
    assert run.fit(1, optax.sgd(0.1), console=None) == ExitCode.OK
    after = run.session.state.params
    changed = jax.tree.map(lambda a, b: bool((a != np.asarray(b)).any()), before, after)
    assert any(jax.tree.leaves(changed))


def test_what_needs_its_layers_is_refused(policies, tmp_path):
    _, own = policies
    assert isinstance(own.decoder, OwnDecoder)
    with pytest.raises(ValueError, match=r"save its nnx\.state"):
        own.save(tmp_path)
