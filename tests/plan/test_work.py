"""The counted arithmetic is that of the matrix products in the traced program."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

from jalign.layout import Layout
from jalign.models.decoder import Decoder
from jalign.models.delta.spec import DeltaNet
from jalign.models.experts.spec import Experts
from jalign.models.score import score
from jalign.models.spec import Spec
from jalign.parallel.paths import path_name
from jalign.plan import work

SPEC = Spec(
    vocab_size=96, width=16, depth=3, heads=4, kv_heads=2, head_dim=8, mlp_width=24, tied=False
)


def dots(jaxpr) -> float:
    """FLOPs of the matrix products of a program, loops as often as they run."""
    total = 0.0
    for eqn in jaxpr.eqns:
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        if eqn.primitive.name == "dot_general":
            (left, _), _ = eqn.params["dimension_numbers"]
            size = 2.0 * eqn.outvars[0].aval.size
            for axis in left:
                size *= eqn.invars[0].aval.shape[axis]
            total += size
        for inner in jaxprs_in_params(eqn.params):
            total += times * dots(inner)
    return total


def traced(function, *args) -> float:
    return dots(jax.make_jaxpr(function)(*args).jaxpr)


def hidden(remat: str):
    """The sum of the hidden states of 2 rows of 64 tokens, as a function of the parameters."""
    model = Decoder(SPEC, attention="xla", remat=remat, unroll=False, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    tokens = jnp.zeros((2, 64), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(64), (2, 64))
    return lambda p: nnx.merge(graphdef, p)(tokens, positions)[0].sum(), params


def test_a_token_passes_its_own_experts_and_decoding_reads_those_of_all_rows():
    mixture = Experts(count=4, top_k=2, width=5, shared_width=6)
    spec = dataclasses.replace(SPEC, experts=mixture)
    attention = 16 * 8 * (2 * 4 + 2 * 2)
    assert work.layer_parameters(spec) == 3 * (attention + 16 * (3 * (4 * 5 + 6) + 4))
    assert work.active_parameters(spec) == 3 * (attention + 16 * (3 * (2 * 5 + 6) + 4))
    counted = work.forward(spec, [work.Rows(128, 2, 64, 0)])
    assert counted.linear == 2 * 128 * work.active_parameters(spec)

    def weights(rows):
        return work.decode_bytes(spec, rows, 0, 1, 1) - work.head_parameters(spec)

    # One row uses 2 of 4 experts, two rows 3 on average.
    cache = work.cache_entry(spec, 1) / 2
    assert weights(1) - cache == work.active_parameters(spec)
    assert weights(2) - 2 * cache == work.layer_parameters(spec, 3)


def test_a_forward_pass_counts_the_layers_and_attention_where_tokens_look():
    function, params = hidden("none")
    counted = work.forward(SPEC, [work.Rows(128, 2, 64, 0)])
    # the plain attention that is traced computes the masked half too
    whole = counted.attention * (64 * 64) / work.seen(64, None)
    assert counted.head == 0
    assert traced(function, params) == counted.linear + whole


def test_remat_attention_recomputes_what_is_inside_of_the_mlp_only():
    rows = [work.Rows(128, 2, 64, 0)]
    kinds = ("none", "dots", "attention", "attention_output", "full")
    none, dots, attention, output, full = (
        work.step(SPEC, rows, adapters=False, remat=remat, vocabulary=False)[1] for remat in kinds
    )
    up_and_gate = 2 * 128 * 3 * 16 * 2 * 24
    assert none == dots and attention - none == up_and_gate
    mixing = 2 * 128 * 3 * 16 * 8 * (2 * 4 + 2 * 2)
    f = work.forward(SPEC, rows)
    assert output - attention == mixing and full - output == f.attention


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_backward_pass_is_two_more_and_recomputation_another(remat):
    function, params = hidden(remat)
    useful, done = work.step(
        SPEC, [work.Rows(128, 2, 64, 0)], adapters=False, remat=remat, vocabulary=False
    )
    f = work.forward(SPEC, [work.Rows(128, 2, 64, 0)])
    masked = f.attention * (64 * 64 / work.seen(64, None) - 1)
    passes = 3 + (remat == "full")
    assert useful == 3 * f.total
    assert traced(jax.value_and_grad(function), params) == pytest.approx(done + passes * masked)


def test_frozen_matrices_have_no_gradient_of_their_own():
    f = work.forward(SPEC, [work.Rows(128, 2, 64, 20)])
    useful, done = work.step(SPEC, [work.Rows(128, 2, 64, 20)], adapters=True, reference=True)
    assert useful == done == 3 * f.linear + 3 * f.head + 4 * f.attention


def test_the_head_runs_on_scored_tokens_only():
    model = Decoder(SPEC, attention="xla", unroll=False, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    positions = jnp.broadcast_to(jnp.arange(64), (2, 64))
    at = jnp.broadcast_to(jnp.arange(10) + 30, (2, 10))
    layout = Layout(
        jnp.zeros((2, 64), jnp.int32),
        positions,
        at - 1,
        at,
        jnp.arange(10)[None, None, None] + at[:, None, None] * 0,
    )

    def logps(p):
        return score(nnx.merge(graphdef, p), layout, ("token_logps",))["token_logps"].sum()

    rows = [work.Rows(128, 2, 64, 20)]
    f = work.forward(SPEC, rows)
    masked = f.attention * (64 * 64 / work.seen(64, None) - 1)
    assert f.head == 2 * 16 * 96 * 20
    assert traced(logps, params) >= f.total + masked


def test_a_window_is_seen_and_no_more():
    assert work.seen(5, None) == 15
    assert work.seen(5, 2) == 1 + 2 + 2 + 2 + 2
    assert work.seen(3, 7) == 6


def test_parameters_are_those_of_the_model():
    params = nnx.state(Decoder(SPEC, rngs=nnx.Rngs(0)))
    matrices = sum(x.size for x in jax.tree.leaves(params) if x.ndim > 1 and x.shape != (3, 16))
    assert work.parameters(SPEC) == matrices


def test_gated_delta_nets_count_their_own_matrices_and_keep_no_keys():
    delta = DeltaNet(key_heads=2, value_heads=4, key_dim=3, value_dim=5, conv=4)
    spec = dataclasses.replace(SPEC, attn_gate=True, delta=delta, delta_layers=(True, False, True))
    params = nnx.state(nnx.eval_shape(lambda: Decoder(spec, rngs=nnx.Rngs(0))))
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    named = {path_name(path): x.size for path, x in leaves}
    matrices = {n: x for n, x in named.items() if n.endswith((".kernel", "embed.weight"))}
    assert work.parameters(spec) == sum(matrices.values())
    assert work.cache_entry(spec, 2) == work.cache_entry(SPEC, 2) / 3
    assert work.state_bytes(spec) == 2 * 4 * 3 * 5 * 4
    rows = work.Rows(tokens=7, rows=1, row_len=7, scored=0)
    attention = work.forward(spec, [rows]).attention
    one = work.forward(SPEC, [rows]).attention / 3
    assert attention == one + 2 * 7 * 4 * (6 * 3 * 5 + 64 * (4 * 3 + 3 * 5))
