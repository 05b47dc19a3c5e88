"""Hugging Face checkpoints in and out.

Loading streams (`jalign.models.streaming`): beside the arrays there is one shard of one parameter,
and of what is read ahead, quantized or from a bucket, 128 MiB or one larger shard.
Nothing but safetensors and JSON is read, and no code of a checkpoint is run.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding
from jax.typing import DTypeLike

from jalign import bucket
from jalign.models.config_json import raw_config
from jalign.models.config_json import read_config as read_config
from jalign.models.decoder import Decoder
from jalign.models.download import download
from jalign.models.families import NOT_KEPT, family_of
from jalign.models.families.base import Family
from jalign.models.families.support import check_support
from jalign.models.families.wrapped import text_name
from jalign.models.heads import initial_kernel
from jalign.models.keys import HEAD, SCORE, check, entries, namer, tensors
from jalign.models.quant import quantize_in_place
from jalign.models.reading import read_parameters
from jalign.models.safetensors_io import Checkpoint, write_sharded
from jalign.models.spec import Spec
from jalign.models.streaming import Progress
from jalign.parallel.paths import named_leaves, path_name
from jalign.parallel.rules import Rules, shardings

LOG = logging.getLogger(__name__)

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
)


@runtime_checkable
class SavesTokenizer(Protocol):
    """What saving needs from a tokenizer."""

    def save_pretrained(self, save_directory: str | os.PathLike) -> object: ...


def load(
    name: str | os.PathLike,
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    rules: Rules | None = None,
    remat: str = "none",
    attention: str | None = None,
    value_head: bool | int = False,
    lm_head: bool = True,
    key: jax.Array | None = None,
    quant: str | None = None,
    progress: Progress | None = None,
) -> Decoder:
    """A decoder with the weights of a folder, or of a model on the Hugging Face hub.

    If a config ties the unembedding to the embedding but the weights hold another unembedding (from
    a merged adapter, say), the model is untied, as in transformers 5, and `save` writes it untied.

    Args:
      name: a folder with config.json and safetensors, on disk or in a bucket (gs://, s3://), or a
        hub name such as "HuggingFaceTB/SmolLM2-135M".
      dtype, param_dtype: of the computation and of the stored parameters.
      mesh, rules: where parameters go (`jalign.parallel.rules`); without a mesh to the first
        device.
      remat, attention: as in `Decoder`.
      value_head: add a scalar head (an int sets the number of outputs): the checkpoint's
        `score.weight` if it has one, else a fresh one from `key`.
      lm_head: False leaves out an unembedding that is not the embedding, for models whose scalar
        head alone is read.
      key: of a fresh scalar head; None is `jax.random.key(0)`.
      quant: a kind of `jalign.models.quant` in which the matrices of layers are stored. They are
        quantized layer by layer while they are read: in the floating type there is one at a time.
      progress: called with the bytes that have been read, and those that this host reads in all.

    Raises:
      ValueError: pickled weights, code in the checkpoint, an unknown architecture, tensors that
        are missing, unexpected, of another shape or not finite (all are named), or a damaged file.
    """
    folder = find(name)
    check_support(raw_config(folder))
    config = read_config(folder)
    family = family_of(config)
    spec = family.spec(config)
    with Checkpoint(folder, text_name) as checkpoint:
        _say_left_out(checkpoint)
        shapes = checkpoint.shapes
        if spec.tied and lm_head and not _same_tables(family, checkpoint):
            spec = dataclasses.replace(spec, tied=False)
            config["tie_word_embeddings"] = False

        plain, model = _abstract(
            spec,
            quant,
            dtype=dtype,
            param_dtype=param_dtype,
            remat=remat,
            attention=attention,
            value_head=value_head,
            lm_head=lm_head and (HEAD in shapes or SCORE not in shapes),
        )
        model.source = json.dumps(config)
        (graphdef, final), leaves = nnx.split(model), named_leaves(plain)
        plan = entries(family, spec, {path: leaf.shape for path, leaf in leaves.items()})
        plan = [e for e in plan if e.row.theirs != SCORE or SCORE in shapes]
        named = namer(family, shapes)
        check(family, plan, shapes, named, headless=spec.tied or not lm_head)
        where = named_leaves(_shardings(mesh, final, rules))
        arrays = read_parameters(
            plan,
            checkpoint,
            named,
            leaves,
            named_leaves(_shardings(mesh, plain, rules)) if quant else where,
            where,
            quant=quant,
            progress=progress,
        )
    if value_head and "value.kernel" not in arrays:  # which the checkpoint does not have
        leaf = leaves["value.kernel"]
        fresh = initial_kernel(jax.random.key(0) if key is None else key, *leaf.shape)
        arrays["value.kernel"] = jax.device_put(fresh.astype(leaf.dtype), where["value.kernel"])
    ordered = (arrays[path] for path in where)
    return nnx.merge(graphdef, jax.tree.unflatten(jax.tree.structure(final), ordered))


def init(
    config: Mapping | Spec,
    *,
    key: jax.Array,
    mesh: Mesh | None = None,
    rules: Rules | None = None,
    **options: Any,
) -> Decoder:
    """A decoder with fresh parameters, created in their shardings: neither a device nor a host ever
    holds all of them.

    Args:
      config: the content of a config.json (such a model can be saved), or a `Spec`.
      key: of the parameters.
      mesh, rules: as in `load`.
      options: of `Decoder`.
    """
    given = isinstance(config, Spec)
    spec = config if given else family_of(config).spec(config)

    def make(key: jax.Array) -> nnx.State:
        return nnx.state(Decoder(spec, **options, rngs=nnx.Rngs(key)))

    model = nnx.eval_shape(lambda: Decoder(spec, **options, rngs=nnx.Rngs(0)))
    model.source = None if given else json.dumps(dict(config))
    graphdef, abstract = nnx.split(model)
    state = jax.jit(make, out_shardings=_shardings(mesh, abstract, rules))(key)
    return nnx.merge(graphdef, state)


def save(
    model: Decoder,
    directory: str | os.PathLike,
    tokenizer: SavesTokenizer | str | os.PathLike | None = None,
    *,
    dtype: DTypeLike | None = None,
    max_shard_bytes: int = 5 * 10**9,
    value_head: bool | None = None,
    settings: Mapping | None = None,
) -> None:
    """Write config.json and safetensors that `transformers` and `load` read.

    A model with a scalar head is written as a sequence-classification model without unembedding,
    one label per output of the head.

    Args:
      model: made by `load` or by `init` from a config; adapters must be merged.
      directory: created if it is not there.
      tokenizer: something with `save_pretrained`, or a folder whose tokenizer files are copied.
      dtype: of the written weights; None is that of the parameters.
      max_shard_bytes: larger models are split into files of at most this size.
      value_head: False writes the language model of a model that also has a scalar head.
      settings: keys of config.json that do not describe the weights, such as `eos_token_id`.

    config.json is written last, so an incomplete folder does not load.

    Raises:
      ValueError: the model has no config or no such head, or carries LoRA adapters.
    """
    if model.source is None:
        raise ValueError(
            "a model made from a Spec alone has no config.json to save with; use hub.init(config)"
        )
    scalar = model.value is not None if value_head is None else value_head
    if scalar and model.value is None:
        raise ValueError("value_head=True, but the model has no scalar head")
    if not scalar and not model.spec.tied and model.lm_head is None:
        raise ValueError("this model has no unembedding, so it cannot be saved as a language model")
    state = nnx.state(model)
    if jax.tree.leaves(nnx.filter_state(state, nnx.LoRAParam)):
        raise ValueError("the model carries LoRA adapters: merge them first, or save them alone")
    config = json.loads(model.source)
    family = family_of(config)
    if scalar and family.scalar is None:
        raise ValueError(
            f"transformers has no sequence classification of {family.model_type}, so a model with "
            "a scalar head cannot be saved in its format"
        )
    leaves = {path_name(p): x for p, x in jax.tree_util.tree_flatten_with_path(state)[0]}
    dropped = HEAD if scalar else SCORE
    plan = entries(family, model.spec, {path: x.shape for path, x in leaves.items()})
    plan = [entry for entry in plan if entry.row.theirs != dropped]
    kind = jnp.dtype(leaves["embed.weight"].dtype if dtype is None else dtype)
    source = tensors(plan, leaves, kind)
    if jax.process_index() > 0:  # other processes only take part in the gathers
        collections.deque(source, maxlen=0)
        return
    folder = Path(directory).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    # An interrupted overwrite must not leave a config beside mixed weights.
    (folder / "config.json").unlink(missing_ok=True)
    sizes = {n: math.prod(e.shape) * kind.itemsize for e in plan for n in e.names}
    write_sharded(folder, sizes, source, max_shard_bytes)
    labels = leaves["value.kernel"].shape[1] if scalar else 0
    if isinstance(tokenizer, SavesTokenizer):
        tokenizer.save_pretrained(folder)
    elif tokenizer is not None:
        for file in TOKENIZER:
            if (Path(tokenizer) / file).is_file():
                (folder / file).write_bytes((Path(tokenizer) / file).read_bytes())
    saved = _config_to_save(config, family, labels, kind) | {
        "tie_word_embeddings": model.spec.tied,
        **(settings or {}),
    }
    # Last: a folder without config.json does not load, so a killed save leaves no half model.
    (folder / "config.json").write_text(json.dumps(saved, indent=2) + "\n")


def find(name: str | os.PathLike) -> Path:
    """The folder of a checkpoint; a hub model's necessary files are downloaded first.

    Of a folder in a bucket it is a local copy of the small files, through which `Checkpoint` reads
    the weights from the bucket.
    """
    return bucket.local_folder(name) or download(str(name))


def spec_of(name: str | os.PathLike) -> Spec:
    """The architecture of a folder or hub model, without its weights."""
    config = read_config(find(name))
    return family_of(config).spec(config)


def stored_dtype(name: str | os.PathLike) -> np.dtype:
    """The type of most of a checkpoint's weights; float32 instead of float64."""
    with Checkpoint(find(name), text_name) as checkpoint:
        sizes: collections.Counter[str] = collections.Counter()
        for tensor, shape in checkpoint.shapes.items():
            sizes[checkpoint.dtypes[tensor]] += math.prod(shape)
    # JAX has no float64 unless x64 is enabled for the whole process.
    kinds = {"F64": "float32", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    return jnp.dtype(kinds[sizes.most_common(1)[0][0]])


def embedding(name: str | os.PathLike) -> np.ndarray:
    """The token embeddings of a checkpoint, float32 [V, D], without loading anything else."""
    folder = find(name)
    family = family_of(read_config(folder))
    with Checkpoint(folder, text_name) as checkpoint:
        theirs = _embedding_name(family, checkpoint)
        return checkpoint.read(theirs, (slice(None), slice(None))).astype(np.float32)


def _abstract(spec: Spec, quant: str | None, **options: Any) -> tuple[nnx.State, Decoder]:
    """Shapes only, since no parameter exists before its shard is read: the state of a decoder, and
    the decoder once its matrices are quantized.
    """

    def make(kind: str | None) -> Decoder:
        model = Decoder(spec, **options, rngs=nnx.Rngs(0))
        if kind:
            quantize_in_place(model, kind)
        return model

    plain = nnx.eval_shape(lambda: make(None))
    return nnx.state(plain), nnx.eval_shape(lambda: make(quant)) if quant else plain


def _say_left_out(checkpoint: Checkpoint) -> None:
    if left := checkpoint.left_out:
        parts = sorted({name.removeprefix("model.").split(".")[0] for name in left})
        text = "%s is read as a model of text: %d tensors of %s are left out, and are in no export"
        LOG.warning(text, checkpoint.folder, len(left), ", ".join(parts))


def _same_tables(family: Family, checkpoint: Checkpoint) -> bool:
    """Whether a tied model's checkpoint has no unembedding of its own, or one equal to the
    embedding.
    """
    shapes, embed = checkpoint.shapes, _embedding_name(family, checkpoint)
    if HEAD not in shapes or embed not in shapes:
        return True
    if shapes[HEAD] != shapes[embed]:
        return False
    # In slices of the mapped files: neither table is in memory at once.
    rows = shapes[embed][0]
    parts = (slice(i, min(i + 4096, rows)) for i in range(0, rows, 4096))
    return all(
        np.array_equal(checkpoint.read(HEAD, (part,)), checkpoint.read(embed, (part,)))
        for part in parts
    )


def _embedding_name(family: Family, checkpoint: Checkpoint) -> str:
    (row,) = [row for row in family.rows if row.ours == ("embed.weight",)]
    return namer(family, checkpoint.shapes)(row.theirs)


def _shardings(mesh: Mesh | None, abstract: nnx.State, rules: Rules | None) -> Any:
    if mesh is not None:
        return shardings(mesh, abstract, rules)
    if rules is not None:
        raise ValueError("sharding rules need a mesh")
    here = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda _: here, abstract)


def _config_to_save(
    config: dict[str, Any], family: Family, labels: int, dtype: np.dtype
) -> dict[str, Any]:
    config = {k: v for k, v in config.items() if k not in NOT_KEPT}
    config |= {"architectures": [family.scalar if labels else family.causal]}
    # transformers 4 writes torch_dtype, 5 dtype.
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype.name
    if labels:  # transformers counts the labels it is given
        names = [f"LABEL_{i}" for i in range(labels)]
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
        config["label2id"] = {name: i for i, name in enumerate(names)}
    return config
