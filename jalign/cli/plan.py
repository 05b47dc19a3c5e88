"""`jalign plan CONFIG --target NAME`: does it fit, and how fast can it be, on hardware that is not
here.
"""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from jalign.config.read import read_config
from jalign.kernels.backend import choose_attention
from jalign.models.functional import policy_of
from jalign.options import RunOptions
from jalign.parallel.mesh import make_mesh
from jalign.plan import data as plan_data
from jalign.plan import work
from jalign.plan.compile import Program, bytes_on_one, little_effort
from jalign.plan.gpus import in_place_of_the_card_here
from jalign.plan.programs import programs_of
from jalign.plan.report import Report
from jalign.plan.roles import PlannedRoles, roles_of
from jalign.plan.suggest import suggestions
from jalign.plan.targets import Target, target, topology
from jalign.run import rollouts as build_online


def plan(args: Sequence[str], console: Console) -> int:
    """Print (and perhaps write) the report; 0 where it fits, 1 where it does not."""
    parser = ArgumentParser(
        prog="jalign plan [CONFIG]",
        allow_abbrev=False,
        description="Whether a run fits a TPU slice or GPU that is not here, and how fast it can "
        "be: jalign plan dpo/llama3_8b_lora_v5e8 --target v5e-8. It takes every key that jalign "
        "train --help lists.",
    )
    parser.add_argument("--target", required=True, help="v5e-16, 2xv5p-128, h100, 8xh100 ...")
    parser.add_argument("--json", help="write the report to this file too")
    parser.add_argument(
        "--exact",
        action="store_true",
        help="compile for a TPU with all effort, as the run does: minutes instead of seconds, and "
        "memory a few per cent lower",
    )
    parser.add_argument(
        "--suggest", action="store_true", help="where it does not fit, try what would help"
    )
    options, rest = parser.parse_known_args(args)
    goal = target(options.target)
    words = [word for word in rest[:1] if not word.startswith("-")]
    if not words and not any(re.match(r"--(config|algorithm)\b", word) for word in rest):
        console.print("no CONFIG and no --algorithm: DPO is planned", highlight=False)
        rest = ["--algorithm", "dpo", *rest]
    config, name = read_config(rest, "plan"), words[0] if words else "defaults"
    quick = goal.platform == "tpu" and not options.exact
    with little_effort() if quick else nullcontext():
        return _plan(config, goal, Path(name).name, options, console)


def _plan(config: RunOptions, goal: Target, name: str, options: Namespace, console: Console) -> int:
    report = planned(config, goal, name)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    for line in report.lines():
        say(line)
    tried = []
    if options.suggest and not report.fits:
        for words, changed in suggestions(config, goal):
            found = planned(changed, goal, name)
            tried.append(found.record() | {"change": words})
            verdict = "fits" if found.fits else "does not fit"
            say(f"with {words}: {verdict}, {max(found.peaks) / 2**30:.2f} GiB")
            if found.fits:
                break
    if options.json:
        record = report.record() | ({"suggestions": tried} if options.suggest else {})
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if report.fits else 1


def planned(config: RunOptions, goal: Target, name: str) -> Report:
    """Compile everything that a run of this config needs for this target."""
    devices = topology(goal)
    c = config.mesh
    mesh = make_mesh(c.data, c.fsdp, c.tensor, c.context, devices=devices)
    with jax.set_mesh(mesh), in_place_of_the_card_here(goal.accelerator):
        roles = roles_of(config, mesh)
        spec = roles.model.decoder.spec
        online = config.algorithm.experience is not None
        data = (plan_data.online_data if online else plan_data.offline_data)(config, mesh, spec)
        facts = _facts(config, mesh, roles, goal, data)
        report = Report(name, goal, facts, _parts(roles), _parts(roles, host=True))
        for program in programs_of(config, mesh, roles, data):
            report.programs.append(program)
            report.beside.append(_beside(roles, program))
        _count(config, report, roles, data, online)
    return report


def _beside(roles: PlannedRoles, program: Program) -> float:
    """Bytes that stand on one device while a program runs and are no argument of it, less those of
    arrays that it is given twice, which its compiler counted twice.
    """
    given = jax.tree.leaves(program.arguments)
    twice = bytes_on_one(given) - bytes_on_one(given, set())
    if program.memory is None:  # a refusal says what it would need in all
        return -twice
    stays = (roles.state, roles.frozen, jax.tree.leaves((roles.reward, roles.judge)))
    read = {id(x) for x in given}
    return bytes_on_one(stays, read) - twice


def _parts(roles: PlannedRoles, *, host: bool = False) -> dict[str, float]:
    size = partial(bytes_on_one, seen=set(), host=host)
    state, frozen = roles.state, roles.frozen
    parts = {
        "trained (masters)": size(state.params),
        "frozen weights": size(frozen.base),
        "optimizer": size(state.opt_state),
        "reference": size((frozen.ref, state.ref)),
        "reward model": size(jax.tree.leaves(roles.reward)) if roles.reward else 0.0,
        "judge": size(jax.tree.leaves(roles.judge)) if roles.judge else 0.0,
    }
    return {name: x for name, x in parts.items() if x}


def _facts(config: RunOptions, mesh, roles: PlannedRoles, goal: Target, data) -> dict[str, str]:
    spec = roles.model.decoder.spec
    a = goal.accelerator
    kernels = {
        choose_attention(
            a.platform,
            roles.model.decoder.dtype,
            spec.head_dim,
            spec.attn_softcap,
            kind.window,
            compute_capability=a.capability,
            device_kind=a.kind,
            requested=None if config.model.attention == "auto" else config.model.attention,
        )
        for kind in spec.kinds
    }
    rows = plan_data.rows_of(data)
    count = sum(int(stack.count) for stack in data)
    prompt, response = plan_data.longest(config, spec)
    facts = {
        "model": f"{roles.origin}, {work.parameters(spec) / 1e9:.2f} B parameters, "
        f"computing in {np.dtype(roles.model.decoder.dtype).name}, remat {config.model.remat}",
        "algorithm": config.algorithm_name
        + (f", LoRA of rank {config.model.lora.rank}" if config.model.lora else ", full"),
        "mesh": " x ".join(f"{name} {size}" for name, size in mesh.shape.items()),
        "examples": f"{config.batch_size} per step, all of {prompt} + {response} tokens, "
        f"{count} micro-batches, rows of {max(r.row_len for r in rows)}",
        "attention": "; ".join(f"{kernel}: {why}" for kernel, why in sorted(kernels)),
    }
    if roles.judge:
        facts["judge"] = (
            f"{config.reward.judge.model} in this process: its weights are counted, what it needs "
            "while it answers is not"
        )
    return facts


def _count(config: RunOptions, report: Report, roles: PlannedRoles, data, online: bool) -> None:
    algorithm, spec = config.algorithm, roles.model.decoder.spec
    mesh_size = report.target.devices
    # an online run reads its reference once per rollout, before its steps
    reference = algorithm.needs_reference() and config.reference != "cached"
    count = sum(int(stack.count) for stack in data)
    report.tokens = plan_data.real_tokens(data)
    report.flops = plan_data.step_flops(config, spec, data)
    itemsize = np.dtype(roles.model.decoder.dtype).itemsize
    passes = 2 + (config.model.remat == "full") + reference
    weights = (work.layer_parameters(spec) + work.head_parameters(spec)) * itemsize
    tensor = config.mesh.tensor
    updated = (policy_of(roles.state.params), roles.state.opt_state)
    updated = bytes_on_one(updated) + bytes_on_one(updated, host=True)
    report.bytes_moved = count * passes * weights / tensor + 3 * updated
    report.steps = plan_data.steps_of(config)
    report.saved = sum(_bytes(x) for x in jax.tree.leaves(roles.state))
    report.kept = config.checkpoint.keep + 1 + bool(config.stop.metric)
    if online:
        plan = build_online.spec_of(config)
        prompt, _ = plan_data.longest(config, spec)
        rows_sampled = (config.rollout.rows or plan.prompts * plan.responses) / mesh_size
        places = prompt + config.rollout.max_new_tokens
        report.rollouts = -(-report.steps // plan.steps)
        rows = -(-plan.prompts * plan.responses // mesh_size)
        new = config.rollout.max_new_tokens
        read = work.decode_bytes(spec, rows, prompt, new, itemsize)
        report.sampling_s = read / report.target.accelerator.bandwidth
        report.cache = work.cache_entry(spec, itemsize) * places * max(1.0, rows_sampled)


def _bytes(x: jax.ShapeDtypeStruct) -> float:
    """Of a whole array, over all devices."""
    if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
        return 0.0
    return float(np.prod(x.shape)) * np.dtype(x.dtype).itemsize
