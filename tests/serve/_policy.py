"""The embedded model on one device, which the engine compiles in a few seconds."""

import jax
import jax.numpy as jnp
from flax import nnx

from jalign import embedded
from jalign.data.tokenizers import load_tokenizer
from jalign.models import hub
from jalign.models.adapters.lora import adapters, add_lora
from jalign.models.adapters.peft import save_adapter
from jalign.parallel.mesh import make_mesh
from jalign.run.policy import Policy
from jalign.serve.types import Limits

# One for the tests of this process: what one engine has compiled serves the others.
LIMITS = Limits(rows=3, max_len=120, chunk=4, queue=100)


def embedded_policy():
    path = str(embedded.path())
    mesh = make_mesh(devices=jax.devices()[:1])
    return Policy(hub.load(path), load_tokenizer(path), path, mesh)


def write_adapter(folder, seed):
    """An adapter of the embedded model that changes what it says."""
    model = add_lora(hub.load(str(embedded.path())), rank=2, alpha=8.0, rngs=nnx.Rngs(seed))
    for i, (_, lora) in enumerate(sorted(adapters(model).items())):
        key = jax.random.key(100 * seed + i)
        lora.b[...] = jax.random.normal(key, lora.b.shape, jnp.float32) * 0.5
    save_adapter(model, folder, "embedded")


def write_reward_model(folder):
    """The embedded model with a scalar head that nothing has trained."""
    model = hub.load(str(embedded.path()), value_head=True, key=jax.random.key(5))
    hub.save(model, folder, load_tokenizer(embedded.path()))
