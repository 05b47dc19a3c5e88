"""Where a run's arrays live: a mesh, rules for parameters, and a plan for absent hardware."""

# %% Devices = data x fsdp x context x tensor; -1 is what is left. On CPU, try it with
# XLA_FLAGS=--xla_force_host_platform_device_count=8.
import jax

import jalign
from jalign.options import MeshConfig

policy = jalign.load("embedded", mesh=MeshConfig(fsdp=-1))
print("mesh", dict(policy.mesh.shape))

# %% Weights were read straight into their shards.
apply, params, base = policy.functional()
for path, leaf in jax.tree.leaves_with_path(params)[:6]:
    print(jax.tree_util.keystr(path, simple=True, separator="."), leaf.shape, leaf.sharding.spec)

# %% What a run would need on hardware that is not here is a question of the command line:
# jalign plan configs/dpo/llama3_8b_lora_v5e8.yaml --target v5e-8
