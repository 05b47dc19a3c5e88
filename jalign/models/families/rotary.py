"""config.json -> rotary embedding, and the context it was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jalign.models.rope import Llama3Stretch, Rope
from jalign.models.rope_stretched import (
    DynamicNTK,
    LongRope,
    Yarn,
    longrope_multiplier,
    yarn_multiplier,
)

Config = Mapping[str, Any]

ROPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")


def rope(
    config: Config,
    *,
    base: float = 10000.0,
    fraction: float = 1.0,
    layer_type: str | None = None,
) -> Rope:
    """The rotary embedding of a config, in the notation of transformers 4 (rope_theta,
    rope_scaling) or 5 (rope_parameters).

    Args:
      base, fraction: when the config names none.
      layer_type: key into `rope_parameters` where they differ by layer.

    Raises:
      ValueError: an unknown kind of scaling, or one without a number that it needs.
    """
    p = scaling(config, layer_type)
    kind = p["rope_type"]
    base = float(p.get("rope_theta") or config.get("rope_theta") or base)
    fraction = p.get("partial_rotary_factor", config.get("partial_rotary_factor", fraction))
    if kind == "default":
        return Rope(base, fraction)
    limit, original = config.get("max_position_embeddings"), original_tokens(config, p)

    def number(name: str) -> Any:
        if p.get(name) is None:
            raise ValueError(f"rotary scaling {kind!r} needs {name!r}, which config.json lacks")
        return p[name]

    def factor() -> float:
        ratio = limit / original if limit and original else None
        return float(p.get("factor") or ratio or number("factor"))

    if kind != "linear" and not original:
        number("original_max_position_embeddings")
    if kind == "linear":
        return Rope(base, fraction, float(number("factor")))
    if kind == "llama3":
        stretch = (number(n) for n in ("factor", "low_freq_factor", "high_freq_factor"))
        return Rope(base, fraction, llama3=Llama3Stretch(*stretch, original))
    if kind == "dynamic":
        # transformers' dynamic NTK takes max_position_embeddings for the original context.
        tokens = limit or original
        return DynamicNTK(base, fraction, factor=float(number("factor")), original_tokens=tokens)
    given = p.get("attention_factor")
    if kind == "longrope":
        multiplier = longrope_multiplier(factor(), original) if given is None else given
        short, long = (tuple(map(float, number(n))) for n in ("short_factor", "long_factor"))
        return LongRope(
            base,
            fraction,
            short=short,
            long=long,
            original_tokens=original,
            multiplier=float(multiplier),
        )
    if given is None:
        given = yarn_multiplier(factor(), p.get("mscale"), p.get("mscale_all_dim"))
    return Yarn(
        base,
        fraction,
        factor=factor(),
        original_tokens=original,
        fast=float(p.get("beta_fast") or 32.0),
        slow=float(p.get("beta_slow") or 1.0),
        multiplier=float(given),
        truncate=p.get("truncate", True),
    )


def scaling(config: Config, layer_type: str | None = None) -> dict:
    """The rotary parameters of a config with their `rope_type`.

    Raises:
      ValueError: an unknown one.
    """
    p = config.get("rope_parameters") or config.get("rope_scaling") or {}
    p = p.get(layer_type, p) or {}
    kind = p.get("rope_type", p.get("type", "default"))
    if config.get("model_type") == "phi3" and kind in ("su", "yarn"):  # what early ones call it
        kind = "longrope"
    if kind not in ROPES:
        raise ValueError(f"rotary scaling {kind!r} is not supported; there is: {', '.join(ROPES)}")
    return dict(p) | {"rope_type": kind}


def original_tokens(config: Config, p: Config) -> int | None:
    """The context before rotary scaling; the top-level key takes precedence, as in transformers."""
    outside = config.get("original_max_position_embeddings")
    if outside is None and config.get("model_type") == "phi3":
        # The default of transformers' Phi3Config, which early checkpoints rely on.
        outside = 4096
    inside = p.get("original_max_position_embeddings")
    return outside or inside or config.get("max_position_embeddings")


def context(config: Config) -> int | None:
    """The trained context of a model with rotary positions, in tokens: max_position_embeddings,
    extended by its scaling; None if the config does not give it.
    """
    limit = config.get("max_position_embeddings")
    p = scaling(config)
    factor = float(p.get("factor") or 1.0)
    if limit is None or p["rope_type"] in ("default", "llama3", "longrope"):
        return limit  # of the latter two these are the stretched ones
    if p["rope_type"] == "yarn":
        return max(limit, int(factor * (original_tokens(config, p) or limit)))
    return int(factor * limit)
