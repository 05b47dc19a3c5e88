"""Routes of a mixture that the sampler records, and that training replays."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from jalign.core import Frozen
from jalign.models.experts.spec import Experts
from jalign.models.functional import functional
from jalign.parallel.mesh import make_mesh
from jalign.rollout.groups import respond
from jalign.rollout.sampler import Settings
from jalign.train.micro_batches import MicroBatchPacker
from jalign.train.scoring import ResponseScorer
from tests.rollout._tiny import KEY, SPEC, tiny

MIXTURE = dataclasses.replace(SPEC, depth=1, experts=Experts(count=5, top_k=2, width=12))
SETTINGS = Settings(max_new_tokens=6, responses=2, eos=(2, 5), record_experts=True)
PROMPTS = [np.arange(3, 9, dtype=np.int32), np.arange(8, 19, dtype=np.int32)]


@pytest.fixture(scope="module")
def rollout():
    return respond(tiny(spec=MIXTURE), PROMPTS, SETTINGS, KEY, batch_size=2)


@pytest.fixture(scope="module")
def logps():
    """Log-probs that training computes of a rollout."""
    apply, params, base = functional(nnx.merge(*tiny(spec=MIXTURE)), nnx.Param)
    mesh = make_mesh(devices=jax.devices()[:1])
    scorer = ResponseScorer(apply, 1.0, MicroBatchPacker(mesh, 11, 6, 128, 8))

    def of(rollout):
        with jax.set_mesh(mesh):
            return scorer(rollout, ("old_token_logps",), params, Frozen(base, None))

    return lambda rollout: of(rollout)["old_token_logps"][rollout.mask]


def test_every_token_but_the_last_has_two_experts(rollout):
    read = np.arange(6) < rollout.lengths[..., None] - 1
    assert rollout.experts.shape == (2, 2, 6, 2)  # one layer
    assert (rollout.experts[~read] == -1).all()
    first, second = rollout.experts[read].T
    assert (first != second).all() and len(set(first.tolist())) > 2


def test_the_routers_own_routes_change_nothing_and_others_are_followed(rollout, logps):
    own = logps(rollout._replace(experts=None))
    np.testing.assert_allclose(logps(rollout), own, atol=1e-6)
    np.testing.assert_allclose(rollout.token_logps[rollout.mask], own, atol=1e-5)
    other = np.where(rollout.experts < 0, -1, (rollout.experts + 1) % 5)
    changed = np.abs(logps(rollout._replace(experts=other)) - own) > 1e-4
    at = np.cumsum(rollout.lengths.ravel()) - rollout.lengths.ravel()
    assert not changed[at].any()  # the first token of a response follows the prompt
    assert changed.sum() == changed.size - len(at)


def test_routes_belong_to_their_responses(rollout):
    turned = rollout.take(np.array([[1, 0], [1, 0]])).padded_to(8)
    np.testing.assert_array_equal(turned.experts[:, ::-1, :6], rollout.experts)
    assert (turned.experts[:, :, 6:] == -1).all()
    assert rollout.beside(rollout._replace(experts=None)).experts is None


def test_a_model_without_experts_records_none():
    with pytest.raises(ValueError, match="this model has none"):
        respond(tiny(), PROMPTS, SETTINGS, KEY, batch_size=2)
