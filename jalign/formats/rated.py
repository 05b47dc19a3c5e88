"""Rated: one response with a number, or one number per attribute."""

from dataclasses import replace

from jalign.core.format import Arrays, Format
from jalign.formats._fields import at_last_token, length, per_example, sum_over_response
from jalign.layout import Batch


def _rated(out: Arrays, batch: Batch) -> Arrays:
    mask = batch.mask[:, 0]
    named = {"present": mask.any(-1), "len": length(mask), "mask": mask}
    if "token_logps" in out:
        named["logps"] = sum_over_response(out["token_logps"][:, 0], mask)
    if "scores" in out:
        named["scores"] = at_last_token(out["scores"][:, 0], mask)
    if "attributes" in out:
        named["attribute_scores"] = at_last_token(out["attributes"][:, 0], mask)
    # every token's value, not the last: the critic learns at each of them
    if "values" in out:
        named["token_values"] = out["values"][:, 0]
    return named


RATED = Format(
    name="rated",
    k=1,
    view=_rated,
    reads={"logps": ("token_logps",), "scores": ("scores",), "token_values": ("values",)}
    | {"attribute_scores": ("attributes",)},
    mask_fields=frozenset({"present", "len", "mask"}),
    data_fields=frozenset({"rating", "attribute_ratings"}),
    axes={"token_values": "BR", "mask": "BR", "attribute_scores": "BA", "attribute_ratings": "BA"},
    metrics=per_example,
    feedback="rating",
)


# Scores between 0 and 1, which any kind of data can be made into.
SCORED = replace(RATED, name="scored", data_fields=frozenset({"rating"}))
