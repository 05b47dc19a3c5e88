"""Compile a run for unavailable hardware: does it fit, and how fast can it be?"""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from jalign.kernels.backend import choose_attention
from jalign.layout import MicroBatches
from jalign.models.functional import policy_of
from jalign.options import RunOptions
from jalign.parallel.axes import EXPERT
from jalign.parallel.mesh import make_mesh
from jalign.plan import data as plan_data
from jalign.plan import work
from jalign.plan.compile import Program, bytes_on_one, not_cached
from jalign.plan.gpus import in_place_of_the_card_here
from jalign.plan.programs import programs_of
from jalign.plan.report import Report
from jalign.plan.roles import PlannedRoles, roles_of
from jalign.plan.targets import Target, topology
from jalign.run import rollouts as build_online
from jalign.run.limits import check_expert_axis

Stacks = tuple[MicroBatches, ...]


def plan_run(options: RunOptions, goal: Target, name: str) -> Report:
    """Compile every program of a run for a target, without its devices.

    Args:
      name: name of the run in the report.
    """
    devices = topology(goal)
    c = options.mesh
    mesh = make_mesh(c.data, c.fsdp, c.tensor, c.context, c.expert, devices=devices)
    # both in scope while programs are traced: constraints and kernels are chosen then
    with jax.set_mesh(mesh), in_place_of_the_card_here(goal.accelerator), not_cached():
        roles = roles_of(options, mesh)
        spec = roles.model.decoder.spec
        check_expert_axis(spec, mesh.shape[EXPERT], options.model.path)
        online = options.algorithm.experience is not None
        data = (plan_data.online_data if online else plan_data.offline_data)(options, mesh, spec)
        facts = _facts(options, mesh, roles, goal, data)
        report = Report(name, goal, facts, _resident(roles), _resident(roles, host=True))
        for program in programs_of(options, mesh, roles, data):
            report.programs.append(program)
            report.beside.append(_beside(roles, program))
        _add_costs(options, report, roles, data)
        if online:
            _add_sampling_costs(options, report, roles)
    return report


def _beside(roles: PlannedRoles, program: Program) -> float:
    """Bytes resident on one device besides the arguments of a program, minus arrays that are passed
    twice, because the compiler counted them twice.
    """
    arguments = jax.tree.leaves(program.arguments)
    twice = bytes_on_one(arguments) - bytes_on_one(arguments, set())
    if program.memory is None:  # a refused program reports the total it would need
        return -twice
    resident = (roles.state, roles.frozen, jax.tree.leaves((roles.reward, roles.judge)))
    read = {id(x) for x in arguments}
    return bytes_on_one(resident, read) - twice


def _resident(roles: PlannedRoles, *, host: bool = False) -> dict[str, float]:
    """Bytes by role, on one device or in its share of host memory."""
    size = partial(bytes_on_one, seen=set(), host=host)
    state, frozen = roles.state, roles.frozen
    sizes = {
        "trained (masters)": size(state.params),
        "frozen weights": size(frozen.base),
        "optimizer": size(state.opt_state),
        "reference": size((frozen.ref, state.ref, state.last)),
        "reward model": size(jax.tree.leaves(roles.reward)) if roles.reward else 0.0,
        "judge": size(jax.tree.leaves(roles.judge)) if roles.judge else 0.0,
    }
    return {name: x for name, x in sizes.items() if x}


def _facts(
    options: RunOptions, mesh: Mesh, roles: PlannedRoles, goal: Target, data: Stacks
) -> dict[str, str]:
    spec = roles.model.decoder.spec
    a = goal.accelerator
    # a set: layers with windows and without may get different kernels
    kernels = {
        choose_attention(
            a.platform,
            roles.model.decoder.dtype,
            spec.head_dim,
            spec.attn_softcap,
            kind.window,
            spec.attn_sinks,
            compute_capability=a.capability,
            device_kind=a.kind,
            requested=None if options.model.attention == "auto" else options.model.attention,
        )
        for kind in spec.kinds
        if not kind.delta
    }
    rows = plan_data.rows_of(data)
    count = sum(int(stack.count) for stack in data)
    prompt, response = plan_data.longest(options, spec)
    active = ""
    if spec.experts:
        active = f" ({work.active_parameters(spec) / 1e9:.2f} B in layers for a token)"
    facts = {
        "model": f"{roles.origin}, {work.parameters(spec) / 1e9:.2f} B parameters{active}, "
        f"computing in {np.dtype(roles.model.decoder.dtype).name}, remat {options.model.remat}",
        "algorithm": options.algorithm_name
        + (f", LoRA of rank {options.model.lora.rank}" if options.model.lora else ", full"),
        "mesh": " x ".join(f"{name} {size}" for name, size in mesh.shape.items()),
        "examples": f"{options.batch_size} per step, all of {prompt} + {response} tokens, "
        f"{count} micro-batches, rows of {max(r.row_len for r in rows)}",
        "attention": "; ".join(f"{kernel}: {why}" for kernel, why in sorted(kernels)),
    }
    if roles.judge:
        facts["judge"] = f"{options.reward.judge.model} in this process"
    return facts


def _add_costs(options: RunOptions, report: Report, roles: PlannedRoles, data: Stacks) -> None:
    """Fill in the report's arithmetic: FLOPs, bytes moved, steps, checkpoint sizes."""
    spec = roles.model.decoder.spec
    count = sum(int(stack.count) for stack in data)
    report.tokens = plan_data.real_tokens(data)
    report.flops = plan_data.step_flops(options, spec, data)
    itemsize = np.dtype(roles.model.decoder.dtype).itemsize
    weights = (work.layer_parameters(spec) + work.head_parameters(spec)) * itemsize
    updated = (policy_of(roles.state.params), roles.state.opt_state)
    # what waits on the host comes to the device for its update
    updated = bytes_on_one(updated) + bytes_on_one(updated, host=True)
    report.bytes_moved = count * passes(options) * weights / options.mesh.tensor + 3 * updated
    report.steps = plan_data.steps_of(options)
    report.saved = sum(_bytes(x) for x in jax.tree.leaves(roles.state))
    report.kept = options.checkpoint.keep + 1 + bool(options.stop.metric)


def passes(options: RunOptions) -> int:
    """How often the step reads all weights for a micro-batch: forward, backward, forward again with
    remat full, and the reference, which an online run reads once per rollout, before its steps.
    """
    row = options.algorithm
    reference = row.needs_reference() and options.reference != "cached" and not row.experience
    return 2 + (options.model.remat == "full") + reference


def _add_sampling_costs(options: RunOptions, report: Report, roles: PlannedRoles) -> None:
    """Fill in the report's rollouts: how many, how long, and the size of the KV cache."""
    spec, devices = roles.model.decoder.spec, report.target.devices
    itemsize = np.dtype(roles.model.decoder.dtype).itemsize
    rollout = build_online.spec_of(options)
    prompt, _ = plan_data.longest(options, spec)
    new = options.rollout.max_new_tokens
    responses = rollout.prompts * rollout.responses
    report.rollouts = -(-report.steps // rollout.steps)
    read = work.decode_bytes(spec, -(-responses // devices), prompt, new, itemsize)
    report.sampling_s = read / report.target.accelerator.bandwidth
    at_once = (options.rollout.rows or responses) / devices
    row = work.cache_entry(spec, itemsize) * (prompt + new) + work.state_bytes(spec)
    report.cache = row * max(1.0, at_once)


def _bytes(x: jax.ShapeDtypeStruct) -> float:
    """Bytes of an array, all devices together."""
    # a key has an extended dtype without an item size, and a few bytes
    if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
        return 0.0
    return float(np.prod(x.shape)) * np.dtype(x.dtype).itemsize
