"""The table of jalign/models/README.md, computed again: logits in two types, and greedy tokens."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_of_models import GOLDEN, NAMES, golden_outputs, parity
from flax import nnx

from jalign.models import hub

README = Path(__file__).parents[2] / "jalign" / "models" / "README.md"
ROW = re.compile(r"^\| `(\w+)` \| ([\d.e-]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) of (\d+) \|$", re.M)
STATED = {name: [float(x) for x in numbers] for name, *numbers in ROW.findall(README.read_text())}


def test_the_table_has_every_golden_model():
    assert list(STATED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_that_of_transformers_as_the_table_says(name):
    found, stated = parity(name), STATED[name]
    assert found.greedy == found.new == stated[3] == stated[4] == 128
    assert max(found.float32, stated[0]) < 2e-5
    # Rounded elsewhere than by transformers, and not more.
    assert found.theirs == pytest.approx(stated[2], abs=6e-4)
    assert 0 < found.bfloat16 < 1.5 * max(stated[1:3])


@pytest.mark.parametrize("name", NAMES)
def test_rows_in_a_flat_stream_have_the_same_logits(name):
    golden, n = golden_outputs(name), 18
    first, second = golden["tokens"]
    stream = jnp.array([[*first, *second[:n], 0]])
    t, end = len(first), len(first) + n
    positions = jnp.array([[*range(t), *range(n), 0]])
    rows = jnp.array([[[*range(t)], [*range(t, end), *[end] * (t - n)]]])
    inverse = jnp.array([[*range(end), 2 * t]])[..., None]  # the last token is in no row
    model = hub.load(GOLDEN / name, attention="xla")
    model.unroll = False

    @nnx.jit
    def logits(model):
        return model.logits(model(stream, positions, rows=rows, inverse=inverse)[0])[0]

    found, expected = np.asarray(logits(model)), golden["logits"]
    np.testing.assert_allclose(found[:t], expected[0], atol=2e-4)
    np.testing.assert_allclose(found[t:end], expected[1, :n], atol=2e-4)
