"""Random arrays for any row of the catalogue."""

import jax.numpy as jnp
import numpy as np

from jalign.train.objective import Objective

SIZE = {"B": 6, "R": 5, "K": 4, "A": 3, "N": 2}
B, R = SIZE["B"], SIZE["R"]


def draw(row, seed=0, dtype=jnp.float32, **hyper):
    """Random arrays for everything the row reads with these hyper-parameters."""
    rng, fields = np.random.default_rng(seed), {}
    for name in sorted(set(row.inputs(**hyper)) | set(row.format.mask_fields)):
        shape = tuple(SIZE[axis] for axis in row.axes(name))
        fields[name] = _array(name, shape, rng, dtype)
    for who in ("", "chosen_", "rejected_"):  # lengths count what the masks show
        if {f"{who}mask", f"{who}len"} <= set(fields):
            fields[f"{who}len"] = fields[f"{who}mask"].sum(-1).astype(jnp.float32)
    if {"mask", "lens"} <= set(fields):
        fields["lens"] = fields["mask"].sum(-1).astype(jnp.float32)
    if "value_steps" in fields:  # beyond the critic's steps, or in the last of them
        fields["value_steps"] = jnp.float32(60 - 11 * (seed % 2))
    if "old_token_logps" in fields:  # a policy that moved a little
        moved = 0.3 * jnp.asarray(rng.normal(size=(B, R)), dtype)
        fields["old_token_logps"] = fields["token_logps"] + moved
    return fields


def _array(name, shape, rng, dtype):
    if name == "present":
        return jnp.ones(B, bool)
    if name in ("correct", "high_covariance"):
        return jnp.asarray(rng.random(shape) < 0.5, jnp.float32)
    if name == "kl_present":
        return jnp.asarray(rng.random(B) < 0.8).at[0].set(True)
    if name.endswith("mask"):
        return jnp.arange(R)[None] < jnp.asarray(rng.integers(2, R + 1, (B, 1)))
    if name == "valid":
        return jnp.asarray(rng.random(shape) < 0.7).at[:, :2].set(True)
    if name == "label":
        return jnp.asarray(rng.random(B) < 0.5).at[:2].set(jnp.array([True, False]))
    if name.endswith(("len", "lens")):
        return jnp.asarray(rng.integers(2, 9, shape), jnp.float32)
    if name.endswith(("prob", "win_rate", "step_labels")):
        return jnp.asarray(rng.uniform(0.05, 0.95, shape), jnp.float32)
    if name == "annotator":
        return jnp.asarray(rng.integers(3, size=shape), jnp.int32)
    if name == "eta":  # with an annotator who is not known yet
        return jnp.asarray(rng.uniform(0.05, 0.95, shape), jnp.float32).at[0].set(jnp.nan)
    if name in ("gap_std", "relaxation"):
        return jnp.asarray(rng.uniform(0.6, 4.0, shape), jnp.float32)
    if name == "density_ratio":  # on both sides of what it is clipped to
        return jnp.asarray(np.exp(rng.uniform(-3, 4, shape)), jnp.float32)
    if (
        name.startswith(("kl_to", "kl_from", "jsd"))
        or ("_kl_" in name and not name.endswith("logps"))
        or "entropy" in name
    ):
        return jnp.asarray(rng.uniform(0.05, 2.0, shape), dtype)
    if name in ("margin", "rating", "gumbel", "gap_mean", "delta", "advantages", "returns"):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)
    if name == "attribute_ratings":  # a column that nobody rated here and there
        return jnp.asarray(rng.normal(size=shape), jnp.float32).at[::2, 1].set(jnp.nan)
    if name == "ratings":  # far enough apart that no small change reorders them
        return jnp.asarray(rng.permuted(np.tile(np.arange(shape[1]) * 0.7, (B, 1)), axis=1))
    if name.endswith(("scores", "values")):
        return jnp.asarray(rng.normal(size=shape), dtype)
    return jnp.asarray(-0.1 - 8 * rng.random(shape), dtype)


def total(row, fields, **hyper):
    """The reduced objective, as training sees it."""
    objective = Objective.of(row, **hyper)
    divisors = jnp.stack([t.reduce(fields)[1] for t in objective.terms])
    return objective.value(fields, divisors)[0]
