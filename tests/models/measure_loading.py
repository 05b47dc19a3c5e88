"""How much memory of the host loading takes beside the arrays that it returns.

    python tests/models/measure_loading.py FOLDER [--quant nf4] [--devices 8]

makes a checkpoint of random weights (2.4 GB in five files) in FOLDER where there is none, and loads
it in bfloat16, sharded over devices of the host. Arrays of such devices are in memory of the host,
so their size is subtracted. FOLDER may also be in a bucket.
"""

import argparse
import json
import os
import threading
import time
from pathlib import Path

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000,
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip


def write(folder: Path) -> None:
    """A checkpoint of CONFIG with random weights in bfloat16."""
    import ml_dtypes
    import numpy as np

    from jalign.models.safetensors_io import write_sharded

    d, m, v = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["vocab_size"]
    shapes = {"model.embed_tokens.weight": (v, d), "model.norm.weight": (d,)}
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes |= {f"{layer}self_attn.{x}_proj.weight": (d, d) for x in "qkvo"}
        shapes |= {f"{layer}mlp.{x}_proj.weight": (m, d) for x in ("gate", "up")}
        shapes |= {f"{layer}mlp.down_proj.weight": (d, m)}
        shapes |= {f"{layer}{x}_layernorm.weight": (d,) for x in ("input", "post_attention")}
    shapes |= {"lm_head.weight": (v, d)}
    rng = np.random.default_rng(0)

    def tensors():
        for name, shape in shapes.items():
            yield name, (rng.random(shape, np.float32) * 0.04 - 0.02).astype(ml_dtypes.bfloat16)

    folder.mkdir(parents=True)
    sizes = {name: 2 * int(np.prod(shape)) for name, shape in shapes.items()}
    write_sharded(folder, sizes, tensors(), 5 * 10**8)
    (folder / "config.json").write_text(json.dumps(CONFIG))


def own_bytes() -> int:
    """Memory of this process that is not the page cache of a mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = dict(line.split(":") for line in lines if line.startswith("Rss"))
    return 1024 * sum(int(sizes[name].split()[0]) for name in ("RssAnon", "RssShmem"))


class Peak(threading.Thread):
    """The largest `own_bytes` until `stop`."""

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes, self._ended = 0, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.002):
            self.bytes = max(self.bytes, own_bytes())

    def stop(self) -> int:
        self._ended.set()
        self.join()
        return self.bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--quant", default="none")
    parser.add_argument("--devices", type=int, default=8)
    args = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={args.devices}"

    import jax
    import jax.numpy as jnp
    from flax import nnx

    from jalign.models import hub
    from jalign.parallel.mesh import make_mesh

    if "://" not in args.folder and not Path(args.folder).exists():
        write(Path(args.folder))
    mesh = make_mesh(fsdp=args.devices)
    jax.block_until_ready(jnp.ones(1) + 1)
    before, peak, start = own_bytes(), Peak(), time.monotonic()
    peak.start()
    options = {} if args.quant == "none" else {"quant": args.quant}
    model = hub.load(
        args.folder, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, mesh=mesh, **options
    )
    jax.block_until_ready(leaves := jax.tree.leaves(nnx.state(model)))
    seconds = time.monotonic() - start
    arrays = sum(s.data.nbytes for x in leaves for s in x.addressable_shards)
    shard = max(x.addressable_shards[0].data.nbytes for x in leaves)
    beside = peak.stop() - before - arrays
    mb = 1e6
    print(
        f"{args.quant} on {args.devices} devices: arrays {arrays / mb:,.0f} MB, largest shard "
        f"{shard / mb:,.0f} MB, peak beside the arrays {beside / mb:,.0f} MB, {seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
