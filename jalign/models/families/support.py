"""What of a config.json is supported, found before any weight is read."""

from __future__ import annotations

from typing import NamedTuple

from jalign.models.families import FAMILIES, check_plain, family_of
from jalign.models.families.base import Config, Family
from jalign.models.families.rotary import scaling
from jalign.models.families.wrapped import text_config
from jalign.models.spec import Spec


class Support(NamedTuple):
    """What jalign reads of a checkpoint.

    Attributes:
      family: the entry of the table that reads it, or None.
      spec: its architecture, or None.
      refusals: why it does not load, a sentence each with a remedy; empty if it loads.
      notes: what is read in another way, or left out.
    """

    family: Family | None
    spec: Spec | None
    refusals: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The same as text, each line a name and a fact."""
        lines = []
        if self.family:
            lines.append(f"family     {self.family.model_type} ({self.family.causal})")
        if self.spec:
            s = self.spec
            kinds = sorted(
                {"full" if k.window is None else f"window of {k.window}" for k in s.kinds}
            )
            lines += [
                f"sizes      {s.depth} layers of width {s.width}, {s.heads} heads of {s.head_dim} "
                f"({s.kv_heads} of keys and values), vocabulary {s.vocab_size:,}",
                f"attention  {', '.join(kinds)}; trained for {s.context or 'unknown'} tokens",
            ]
            if e := s.experts:
                shared = f", and one of {e.shared_width} for all" if e.shared_width else ""
                lines.append(f"experts    {e.top_k} of {e.count} of width {e.width}{shared}")
        lines += [f"note       {note}" for note in self.notes]
        lines += [f"refused    {refusal}" for refusal in self.refusals]
        return lines if self.refusals else [*lines, "loads      yes"]


def support(config: Config) -> Support:
    """What jalign reads of a checkpoint with this config.json, as it is in the file."""
    family, spec, refusals, notes = None, None, [], []
    inner = config.get("text_config")
    if isinstance(inner, dict):
        parts = sorted(k.removesuffix("_config") for k in config if k.endswith("_config"))
        parts = [p for p in parts if p not in ("text", "quantization")]
        kind = inner.get("model_type")
        if kind in FAMILIES:
            notes.append(f"read as a model of text ({kind}); left out: {', '.join(parts)}")
    for check in (check_plain, _check_rope, _check_family):
        try:
            read = check(config)
        except ValueError as error:
            if str(error) not in refusals:
                refusals.append(str(error))
        else:
            family, spec = read or (family, spec)
    if config.get("auto_map") and not refusals:
        notes.append("its own Python code (auto_map) is not run: it is that of transformers' class")
    return Support(family, spec, tuple(refusals), tuple(notes))


def check_support(config: Config) -> None:
    """Raise ValueError that names everything in the way of loading, if there is anything."""
    if refusals := support(config).refusals:
        raise ValueError("; ".join(refusals))


def _check_rope(config: Config) -> None:
    inner = config.get("text_config")
    config = inner if isinstance(inner, dict) else config
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for layer_type in [name for name, x in given.items() if isinstance(x, dict)] or [None]:
        scaling(config, layer_type)


def _check_family(config: Config) -> tuple[Family, Spec] | None:
    try:
        check_plain(config)
    except ValueError:  # reported already; what else is in the way is still of use
        dropped = ("auto_map", "quantization_config")
        config = {k: v for k, v in config.items() if k not in dropped}
    config = text_config(config)
    family = family_of(config)
    return family, family.spec(config)
