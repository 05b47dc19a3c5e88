"""A model over 2 x 2 x 2 devices is the model on one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_of_models import GOLDEN, golden_outputs, positions_of
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jalign.layout import Inverse, Layout
from jalign.models import hub
from jalign.models.adapters.lora import add_lora
from jalign.models.experts import in_place
from jalign.models.experts.exchange import with_whole_kernels
from jalign.models.functional import functional
from jalign.parallel.axes import FSDP_AXES
from jalign.parallel.mesh import make_mesh
from jalign.parallel.paths import path_name
from jalign.plan.traffic import traffic
from jalign.train.state import gathered_copy_fn

EXPECTED = {
    "embed.weight": P("tensor", FSDP_AXES),
    "lm_head.kernel": P(FSDP_AXES, "tensor"),
    "final_norm.weight": P(),
    "layers.attn.q.kernel": P(None, FSDP_AXES, "tensor"),
    "layers.attn.q.bias": P(None, "tensor"),
    "layers.attn.o.kernel": P(None, "tensor", FSDP_AXES),
    "layers.mlp.up.kernel": P(None, FSDP_AXES, "tensor"),
    "layers.mlp.down.kernel": P(None, "tensor", FSDP_AXES),
    "layers.attn_norm.weight": P(),
}


def leaves_of(model):
    paths = jax.tree_util.tree_flatten_with_path(nnx.state(model))[0]
    return {path_name(path): leaf for path, leaf in paths}


@pytest.mark.parametrize(
    "name, sizes",
    [
        ("qwen2", (2, 2, 2, 1)),
        ("phi3", (2, 2, 2, 1)),
        ("gpt2", (2, 2, 2, 1)),
        ("qwen2", (1, 2, 1, 4)),  # data, fsdp, tensor, context: fewer key heads than devices
        ("gpt2", (2, 1, 2, 2)),
        ("mixtral", (1, 1, 2, 1, 4)),  # data, fsdp, tensor, context, expert
        ("gpt_oss", (1, 2, 1, 2, 2)),
    ],
)
def test_a_model_loaded_over_a_mesh_gives_the_same_logits_and_gradients(name, sizes):
    mesh = make_mesh(*sizes)
    golden = golden_outputs(name)
    tokens = jnp.asarray(np.repeat(golden["tokens"], 2, 0))  # four rows over four batch shards

    def logits_and_gradient(model, tokens):
        model.unroll = False  # compiles faster
        graphdef, state = nnx.split(model)

        def f(state):
            model = nnx.merge(graphdef, state)
            logits = model.logits(model(tokens, positions_of(tokens))[0])
            return jnp.sum(jax.nn.log_softmax(logits)[..., 3]), logits

        (_, logits), gradient = jax.jit(jax.value_and_grad(f, has_aux=True))(state)
        return logits, gradient

    with jax.set_mesh(mesh):
        sharded = hub.load(GOLDEN / name, mesh=mesh)
        batch = jax.device_put(tokens, NamedSharding(mesh, P(("data", "fsdp"))))
        logits, gradient = logits_and_gradient(sharded, batch)
    np.testing.assert_allclose(logits[::2], golden["logits"], atol=2e-4)
    _, alone = logits_and_gradient(hub.load(GOLDEN / name), tokens)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3, rtol=1e-3)


def test_gathering_copies_what_is_split_and_passes_the_rest():
    mesh = make_mesh(2, 2, 2, 1)  # data, fsdp, tensor, context
    split, by_tensor = (NamedSharding(mesh, P(*axes)) for axes in (("fsdp", "tensor"), ("tensor",)))
    with jax.set_mesh(mesh):
        params = {
            "kernel": jax.device_put(jnp.arange(16.0).reshape(4, 4), split),
            "here": jax.device_put(jnp.arange(8.0), by_tensor),
        }
        gather, shapes = gathered_copy_fn(params, jnp.float32)
        copy = gather(params)
    assert copy["here"] is params["here"] and shapes["here"] is params["here"]
    assert copy["kernel"].sharding.spec == shapes["kernel"].sharding.spec == P(None, "tensor")
    np.testing.assert_array_equal(copy["kernel"], params["kernel"])


def test_experts_that_were_gathered_once_are_not_gathered_by_every_call():
    tokens = golden_outputs("mixtral")["tokens"]
    mesh = make_mesh(1, 2, 1, 2, 2)  # data, fsdp, tensor, context, expert

    def call(graphdef, state, tokens):
        model = nnx.merge(graphdef, state)
        return model.logits(model(tokens, positions_of(tokens))[0])

    with jax.set_mesh(mesh):
        model = hub.load(GOLDEN / "mixtral", mesh=mesh)
        graphdef, state = nnx.split(model)
        state = gathered_copy_fn(state, jnp.float32)[0](state)
        received, results = [], []
        for definition in (graphdef, with_whole_kernels(graphdef, state)):
            compiled = jax.jit(call, static_argnums=0).lower(definition, state, tokens).compile()
            received.append(traffic(compiled.as_text(), 1.0)["all-gather"].bytes)
            results.append(compiled(state, tokens))
    np.testing.assert_array_equal(*results)
    experts = model.layers.mlp.experts
    one_device = sum(x.kernel[...].nbytes for x in (experts.gate, experts.up, experts.down)) / 2
    assert received[0] - received[1] == pytest.approx(one_device, rel=0.01)


@pytest.mark.parametrize(
    "name, sizes",
    [
        ("mixtral", (8, 1, 1, 1, 1)),  # data, fsdp, tensor, context, expert
        ("mixtral", (2, 1, 2, 1, 2)),
        ("gpt_oss", (2, 1, 1, 1, 4)),  # layers of two kinds, biases
    ],
)
def test_frozen_experts_read_in_their_stack_give_the_same_gradients(name, sizes, monkeypatch):
    """The kernel itself is of TPUs alone: tests/kernels/test_grouped.py."""
    tokens = jnp.asarray(np.repeat(golden_outputs(name)["tokens"], 2, 0))
    mesh = make_mesh(*sizes)

    def value_and_gradient():
        model = hub.load(GOLDEN / name, mesh=mesh)
        model = add_lora(model, rank=2, alpha=4.0, targets=r".*attn\.q", rngs=nnx.Rngs(0))
        b = model.layers.attn.q.lora.b
        b[...] = jnp.asarray(np.random.default_rng(0).normal(size=b.shape) * 0.2, jnp.float32)
        model.unroll, model.remat = False, "full"
        in_place.set_frozen(model)
        graphdef, adapters, base = nnx.split(model, nnx.LoRAParam, ...)

        def f(adapters, base):
            model = nnx.merge(graphdef, adapters, base)
            logits = model.logits(model(tokens, positions_of(tokens))[0])
            return jax.nn.log_softmax(logits)[..., 3].sum()

        return jax.jit(jax.value_and_grad(f))(adapters, base)

    with jax.set_mesh(mesh):
        sliced = value_and_gradient()
        monkeypatch.setattr(in_place, "PLATFORMS", ("cpu",))
        used, product = [], in_place.grouped_matmul_of_layer
        monkeypatch.setattr(
            in_place,
            "grouped_matmul_of_layer",
            lambda *args: used.append(args[1].ndim) or product(*args),
        )
        in_stack = value_and_gradient()
    assert set(used) == {4}
    for a, b in zip(jax.tree.leaves(in_stack), jax.tree.leaves(sliced), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_experts_that_are_trained_or_stored_in_parts_are_not_read_in_their_stack(monkeypatch):
    monkeypatch.setattr(in_place, "PLATFORMS", ("cpu",))
    model = hub.load(GOLDEN / "mixtral")
    used = []
    monkeypatch.setattr(in_place, "with_stacks", lambda layer, stacks, i: used.append(set(stacks)))

    def matrices(trainable):
        apply, params, base = functional(model, trainable)
        one = jnp.zeros((1, 1), jnp.int32)
        layout = Layout(one, one, one, one, one[None, None])
        jax.eval_shape(lambda p, b: apply(p, b, layout, ("token_logps",)), params, base)
        return used.pop()

    assert matrices(nnx.Param) == set()
    assert matrices(nnx.PathContains("router")) == {"gate", "up", "down"}
    assert not in_place.stacks(model.layers)  # the model of the caller is as it was
    in_place.set_frozen(model)
    assert in_place.stacks(model.layers)
    with jax.set_mesh(make_mesh(4, 2)):
        assert not in_place.stacks(model.layers)
    model.layers.mlp.experts.up.dtype = jnp.bfloat16  # a cast would copy the stack
    assert not in_place.stacks(model.layers)


@pytest.mark.parametrize(
    "name",
    [
        *("smollm3", "olmo2", "olmo3", "granite", "cohere2", "ministral", "ministral3", "glm"),
        *("glm4", "phi4", "qwen3_5"),
    ],
)
def test_newer_families_on_flat_streams_over_a_mesh_give_the_logits_of_transformers(name):
    golden, n = golden_outputs(name), 18
    first, second = golden["tokens"]
    t, end = len(first), len(first) + n  # the last token is in no row
    streams = np.array([[*first, *second[:n], 0]] * 2)
    positions = jnp.array([[*range(t), *range(n), 0]] * 2)
    rows = jnp.array([[[*range(t)], [*range(t, end), *[end] * (t - n)]]] * 2)
    inverse = Inverse(jnp.array([[*range(end), 2 * t]] * 2), jnp.zeros((2, 0, 0), jnp.int32))
    mesh = make_mesh(1, 2, 2, 2)  # data, fsdp, tensor, context

    @jax.jit
    def logits(model, tokens):
        return model.logits(model(tokens, positions, rows=rows, inverse=inverse)[0])

    with jax.set_mesh(mesh):
        model = hub.load(GOLDEN / name, mesh=mesh, attention="xla")
        model.unroll = False
        found = logits(model, jax.device_put(streams, NamedSharding(mesh, P("fsdp"))))
    for stream in np.asarray(found):
        np.testing.assert_allclose(stream[:t], golden["logits"][0], atol=2e-4)
        np.testing.assert_allclose(stream[t:end], golden["logits"][1, :n], atol=2e-4)
    assert "tensor" in model.layers.mlp.up.kernel[...].sharding.spec


def test_every_parameter_lies_where_the_rules_say():
    leaves = leaves_of(hub.load(GOLDEN / "qwen2", mesh=make_mesh(2, 2, 2)))
    for path, spec in EXPECTED.items():
        assert leaves[path].sharding.spec == spec, path
    assert leaves["layers.mlp.up.kernel"].addressable_shards[0].data.shape == (3, 16, 12)


def test_fresh_parameters_are_made_in_their_places_and_do_not_depend_on_the_mesh():
    config = json.loads((GOLDEN / "llama" / "config.json").read_text())
    mesh = make_mesh(2, 2, 2)
    spread = leaves_of(hub.init(config, key=jax.random.key(0), mesh=mesh))
    alone = leaves_of(hub.init(config, key=jax.random.key(0)))
    assert spread["layers.mlp.up.kernel"].sharding.spec == P(None, FSDP_AXES, "tensor")
    for path, value in alone.items():
        np.testing.assert_allclose(value, spread[path], atol=1e-6)


def test_a_model_over_a_mesh_saves_what_it_loaded(tmp_path):
    hub.save(hub.load(GOLDEN / "phi3", mesh=make_mesh(2, 2, 2)), tmp_path)
    a, b = leaves_of(hub.load(tmp_path)), leaves_of(hub.load(GOLDEN / "phi3"))
    for path, value in b.items():
        np.testing.assert_array_equal(a[path], value)


def test_rules_without_a_mesh_are_refused():
    with pytest.raises(ValueError, match="need a mesh"):
        hub.load(GOLDEN / "llama", rules=((r"embed\.weight", P()),))
