import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jalign.checkpoint.fingerprint import combine, fingerprint
from jalign.core import TrainState
from jalign.parallel.paths import named_leaves


def mix(h):
    h = (h ^ (h >> 16)) * 0x7FEB352D % 2**32
    h = (h ^ (h >> 15)) * 0x846CA68B % 2**32
    return h ^ (h >> 16)


def by_hand(bits):
    return sum(mix((b + i * 0x9E3779B9) % 2**32) for i, b in enumerate(bits)) % 2**32


def random_bits(dtype, shape=(6, 5)):
    raw = np.random.default_rng(0).integers(0, 256, (*shape, jnp.dtype(dtype).itemsize), np.uint8)
    return raw.view(jnp.dtype(dtype))[..., 0]


def test_a_checksum_is_the_sum_of_mixed_bits_and_places():
    x = jnp.array([[1.0, -2.0], [0.5, 3.0]], jnp.float32)
    bits = [int(b) for b in np.asarray(x).view(np.uint32).ravel()]
    assert fingerprint({"x": x}) == {"x": by_hand(bits)}


def test_a_bool_is_a_byte_and_a_bfloat16_two_bytes():
    tree = {"mask": jnp.array([True, False]), "w": jnp.array([1.0, -1.0], jnp.bfloat16)}
    assert fingerprint(tree) == {"mask": by_hand([1, 0]), "w": by_hand([0x3F80, 0xBF80])}


@pytest.mark.parametrize(
    "dtype",
    [jnp.float32, jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.int32, jnp.int8, jnp.uint32],
)
def test_every_single_flipped_bit_is_caught(dtype):
    x = random_bits(dtype)
    before = fingerprint({"x": jnp.asarray(x)})["x"]
    seen = {before}
    for byte, bit in [(0, 0), (7, 3), (x.nbytes - 1, 7)]:
        raw = bytearray(x.tobytes())
        raw[byte] ^= 1 << bit
        seen.add(
            fingerprint({"x": jnp.asarray(np.frombuffer(bytes(raw), x.dtype).reshape(x.shape))})[
                "x"
            ]
        )
    assert len(seen) == 4


def test_dtypes_narrower_than_a_byte_and_complex_numbers_have_exact_checksums():
    four = jnp.array([-3, 5], jnp.int4)
    assert fingerprint({"x": four}) == {"x": by_hand([0xFD, 5])}
    small = jnp.array([1.5, -6.0], jnp.float4_e2m1fn)
    assert fingerprint({"x": small}) == {"x": by_hand([0x3FC00000, 0xC0C00000])}
    assert fingerprint({"x": jnp.array([1 - 2j])}) == {"x": by_hand([0x3F800000, 0xC0000000])}


def test_a_swap_of_two_elements_is_caught_even_256_places_apart():
    # a sum weighted by place misses this one: 2 * 256 * (bits(2.0) - bits(1.0)) is 2**32
    x = np.zeros(300, np.float32)
    x[[0, 256]] = 1.0, 2.0
    swapped = x.copy()
    swapped[[0, 256]] = 2.0, 1.0
    assert fingerprint([jnp.asarray(x)]) != fingerprint([jnp.asarray(swapped)])


def test_negative_zero_and_different_nans_are_told_apart():
    nans = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    found = fingerprint(
        {
            "+": jnp.zeros(1),
            "-": -jnp.zeros(1),
            "n": jnp.asarray(nans[:1]),
            "m": jnp.asarray(nans[1:]),
        }
    )
    assert len(set(found.values())) == 4


@pytest.mark.parametrize(
    "spec",
    [PartitionSpec("a"), PartitionSpec("b", "a"), PartitionSpec(("a", "b")), PartitionSpec()],
)
def test_it_is_the_same_on_1_and_on_8_devices(spec):
    x = np.random.default_rng(1).normal(size=(8, 16, 3)).astype(np.float32)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
    assert fingerprint([jax.device_put(x, NamedSharding(mesh, spec))]) == fingerprint(
        [jnp.asarray(x)]
    )


def test_keys_scalars_and_empty_leaves_have_one_and_none_has_not():
    tree = {
        "key": jax.random.key(1),
        "n": jnp.int32(5),
        "empty": jnp.zeros((0, 3)),
        "none": None,
        "nothing": {},
    }
    found = fingerprint(tree)
    assert found.keys() == {"key", "n", "empty"}
    assert found["empty"] == 0
    assert found["n"] == by_hand([5])
    assert found["key"] != fingerprint({**tree, "key": jax.random.key(2)})["key"]


def test_names_of_a_train_state_have_no_trace_of_nnx():
    params = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    zero = jnp.int32(0)
    optimizer = optax.adam(1e-3)
    state = TrainState(
        zero, params, optimizer.init(params), {"delta": zero}, jax.random.key(0), zero, zero
    )
    names = list(named_leaves(state))
    assert names[:3] == ["step", "params.bias", "params.kernel"]
    assert "opt_state.0.mu.kernel" in names
    assert "carry.delta" in names


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"'a\.b'"):
        named_leaves({"a": {"b": 1}, "a.b": 2})


def test_the_digest_of_a_tree_changes_with_a_name_and_with_a_value_and_not_with_order():
    digest = combine({"a": 1, "b": 2})
    assert digest == combine({"b": 2, "a": 1})
    assert len({digest, combine({"a": 2, "b": 1}), combine({"a": 1, "c": 2})}) == 3
    assert len(digest) == 16
    int(digest, 16)
