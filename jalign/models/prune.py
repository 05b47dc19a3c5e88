"""Layer pruning: a shallower model as the start of a distilled student."""

from __future__ import annotations

import dataclasses
import json

from flax import nnx

from jalign.models import stacks
from jalign.models.decoder import Decoder

_DEPTH = ("num_hidden_layers", "n_layer")  # what config.json calls it
_PER_LAYER = ("layer_types", "no_rope_layers")


def first_layers(model: Decoder, depth: int) -> Decoder:
    """The first `depth` layers of `model`, with its embeddings, final norm and heads.

    Sanh et al. 2019 (DistilBERT, https://arxiv.org/abs/1910.01108) start a student from layers of
    its teacher; they take every other one, this takes the first ones.

    Raises:
      ValueError: depth is not between 1 and the model's own.
    """
    if not 1 <= depth <= model.spec.depth:
        raise ValueError(f"depth must be between 1 and {model.spec.depth}, got {depth}")
    pruned = nnx.clone(model)
    layers = nnx.state(pruned.layers)
    nnx.update(pruned.layers, stacks.first(model.spec, layers, depth))
    by_layer = {
        name: getattr(model.spec, name)[:depth] for name in ("windowed", "no_rope", "delta_layers")
    }
    pruned.spec = dataclasses.replace(model.spec, depth=depth, **by_layer)
    if model.source:
        config = json.loads(model.source)
        config |= {name: depth for name in _DEPTH if name in config}
        config |= {name: config[name][:depth] for name in _PER_LAYER if config.get(name)}
        pruned.source = json.dumps(config)
    return pruned
