"""Plans for hardware that is not here, compiled by that hardware's own compiler.

tests/golden/plans.json holds what `jalign plan` said, GiB per device, by its arguments (a config,
and what was changed of it) and the version of JAX, with which the compilers come. By default the
quick ones are compiled again; JALIGN_PLANS=all compiles every one whose compiler is installed,
JALIGN_PLANS=TEXT those with the text in their arguments.
"""

import importlib.util
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from rich.console import Console

from jalign.cli.plan import plan
from jalign.config import Config
from jalign.config.read import read_config
from jalign.parallel.mesh import make_mesh
from jalign.plan.compile import bytes_on_one, little_effort
from jalign.plan.report import Report
from jalign.plan.roles import roles_of
from jalign.plan.run import plan_run
from jalign.plan.targets import target, topology

ROOT = Path(__file__).parents[1]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "plans.json").read_text())
QUICK = ("dpo/llama3_8b_lora_v5e8",)
CHOSEN = os.environ.get("JALIGN_PLANS")
ROWS = [row for row in GOLDEN if CHOSEN == "all" or (CHOSEN in row if CHOSEN else row in QUICK)]
COMPILERS = {"tpu": "libtpu", "cuda": "jax_cuda13_plugin"}


def hardware(config: str) -> str:
    """The target at the end of a config's name: v5e8 is v5e-8."""
    return re.sub(r"^(v\d[ep]|tpu7x)(\d+)$", r"\1-\2", config.rpartition("_")[2])


def needs(name: str) -> None:
    if importlib.util.find_spec(COMPILERS[target(name).platform]) is None:
        pytest.skip(f"the compiler for {name} is not installed")


def path_of(config: str) -> str:
    return str(ROOT / "configs" / f"{config}.yaml")


PLANNED = [
    str(p.relative_to(ROOT / "configs")).removesuffix(".yaml")
    for p in sorted((ROOT / "configs").rglob("*.yaml"))
    if "jalign plan" in p.read_text()
]


def test_every_config_for_some_hardware_has_a_golden_plan():
    assert set(PLANNED) == {row for row in GOLDEN if " " not in row}


@pytest.mark.parametrize("config", PLANNED)
def test_a_config_says_how_it_is_plan_run(config):
    said = f"#   jalign plan configs/{config}.yaml --target {hardware(config)}\n"
    assert said in Path(path_of(config)).read_text()
    assert target(hardware(config)).devices


def plan_of(row: str) -> Report:
    """What `jalign plan` says with the arguments of a row."""
    config, *more = row.split()
    goal = more.pop(more.index("--target") + 1) if "--target" in more else hardware(config)
    needs(goal)
    given = read_config([path_of(config), *(x for x in more if x != "--target")])
    with little_effort():
        return plan_run(given, target(goal), row)


@pytest.mark.parametrize("row", ROWS)
def test_a_plan_is_that_of_the_golden_table(row):
    expected, version = GOLDEN[row], ".".join(jax.__version__.split(".")[:2])
    if version not in expected["gib"]:
        pytest.skip(f"no plan was kept of the compilers that come with JAX {version}")
    report = plan_of(row)
    assert report.fits == expected["fits"]
    assert max(report.peaks) / 2**30 == pytest.approx(expected["gib"][version], rel=0.1)


@pytest.mark.skipif(CHOSEN != "all", reason="most of a minute: JALIGN_PLANS=all")
def test_what_does_not_fit_is_said_with_what_it_would_need_and_what_helps(tmp_path, capsys):
    needs("v5e-4")
    config = [path_of("dpo/llama3_8b_lora_v5e8"), "--mesh.fsdp", "4", "--data.max_tokens", "3200"]
    options = ["--target", "v5e-4", "--json", str(tmp_path / "plan.json"), "--suggest"]
    full = [*config, "--model.lora", "null", "--reference", "cached", *options]
    assert plan(full, Console(width=200)) == 1
    out = capsys.readouterr().out
    assert "DOES NOT FIT" in out and "refused by the compiler" in out
    found = json.loads((tmp_path / "plan.json").read_text())
    assert not found["fits"] and found["gib_peak"] > 2 * found["gib_per_device"]
    assert found["suggestions"][-1]["fits"]
    assert "LoRA" in found["suggestions"][-1]["change"]


@pytest.fixture(scope="module")
def online():
    """PPO of the model in the package, with a reward model, on one chip host."""
    needs("v5e-4")
    config = read_config([str(ROOT / "configs" / "tiny" / "ppo.yaml")])
    reward = replace(config.reward, functions={}, model="embedded")
    config: Config = replace(config, reward=reward, model=replace(config.model, remat="full"))
    with little_effort():
        return plan_run(config, target("v5e-4"), "ppo")


def test_an_online_run_is_planned_with_all_its_programs_and_roles(online):
    names = [p.name for p in online.programs]
    assert names == ["train step", "sampling", "log-probs of responses", "reward model"]
    assert {"trained (masters)", "optimizer", "reference", "reward model"} <= set(online.parts)
    assert online.fits and online.cache > 0


def test_what_a_program_does_not_read_stands_beside_it(online):
    step, sampling, _, reward = online.beside
    assert 0 < online.parts["reward model"] <= step * 1.01
    assert reward > sampling > step  # the step reads most


def test_a_record_can_be_read_by_machines(online):
    record = json.loads(json.dumps(online.record()))
    assert record["fits"] and record["devices"] == 4
    assert record["step"]["tokens"] > 0 and record["step"]["tflop_with_recomputation"] > 0
    assert {"arithmetic", "memory", "links"} == set(record["step"]["floor_s"])


def test_an_opponent_and_a_judge_in_this_process_are_programs():
    needs("v5e-4")
    words = ["--algorithm", "nash_md", "--model.path", "embedded", "--data.train", "embedded"]
    judge = ["--reward.judge.ask", "preference", "--reward.judge.model", "embedded"]
    sizes = ["--steps", "1", "--batch_size", "4", "--rollout.max_new_tokens", "32"]
    with little_effort():
        report = plan_run(read_config([*words, *judge, *sizes]), target("v5e-4"), "nash_md")
    programs = {p.name: p.memory for p in report.programs}
    assert {"sampling", "sampling of the mixture", "judge"} <= set(programs)
    # the mixture reads the weights of a second model
    assert programs["sampling of the mixture"].arguments > programs["sampling"].arguments


def test_a_policy_of_the_last_iteration_and_a_moving_reference_are_models_that_write():
    needs("v5e-4")
    sizes = ["--steps", "2", "--batch_size", "4", "--rollout.max_new_tokens", "32"]
    given = ["--model.path", "embedded", "--data.train", "embedded", "--model.depth", "1", *sizes]
    given += ["--reward.functions", "{repetition: 1.0}"]
    written = {}
    with little_effort():
        for name, more in (("egpo", []), ("xpo", ["--algorithm.ref_sync_steps", "2"])):
            config = read_config(["--algorithm", name, *given, *more])
            report = plan_run(config, target("v5e-4"), name)
            written[name] = [p.name for p in report.programs if p.name.startswith("sampling of")]
    assert written == {"egpo": ["sampling of the last"], "xpo": ["sampling of the reference"]}


def test_the_mesh_of_a_config_must_fit_the_target():
    needs("v5e-4")
    with pytest.raises(ValueError, match="does not fit 4 devices"):
        plan_run(read_config([path_of("dpo/llama3_8b_lora_v5e8")]), target("v5e-4"), "dpo")


def test_slices_hold_copies_of_the_model():
    needs("2xv5e-4")
    config = read_config([str(ROOT / "configs" / "quickstart.yaml")])
    with pytest.raises(ValueError, match="data must be a multiple of 2, got 1"):
        plan_run(config, target("2xv5e-4"), "quickstart")


def test_what_is_offloaded_is_no_argument_that_a_device_holds():
    needs("v5e-4")
    options = ["--optim.offload", "host", "--model.reference_offload", "host", "--mesh.fsdp", "4"]
    with little_effort():
        report = plan_run(
            read_config(
                [str(ROOT / "configs" / "tiny" / "dpo.yaml"), *options, "--mesh.data", "1"]
            ),
            target("v5e-4"),
            "dpo",
        )
    trained = report.parts["trained (masters)"]
    assert report.host_parts["optimizer"] == pytest.approx(2 * trained, rel=1e-3)
    assert report.host_parts["reference"] == pytest.approx(trained / 2, rel=0.02)  # bfloat16
    assert report.parts["optimizer"] < 100 and "reference" not in report.parts  # the count of steps
    [step] = report.programs
    assert step.memory and step.memory.arguments < 1.5 * trained
    assert report.record()["gib_host_parts"].keys() == {"optimizer", "reference"}
    assert any("in the host's memory" in line for line in report.lines())


@pytest.mark.skipif(os.environ.get("JALIGN_PLANS") != "all", reason="two minutes")
def test_the_peak_of_a_large_run_falls_by_what_its_optimizer_takes():
    config = "dpo/llama3_8b_full_v5e16"
    needs("v5e-16")
    with little_effort():
        on_host = read_config([path_of(config), "--optim.offload", "host"])
        report = plan_run(on_host, target("v5e-16"), config)
        coded = read_config([path_of(config), "--optim.moments", "int8"])
        small = plan_run(coded, target("v5e-16"), config)
    full, gone = GOLDEN[config]["gib"]["0.10"], report.host_parts["optimizer"] / 2**30
    assert full - max(report.peaks) / 2**30 == pytest.approx(gone, abs=0.1)
    kept = small.parts["optimizer"] / 2**30
    assert kept < 0.27 * gone
    assert full - max(small.peaks) / 2**30 == pytest.approx(gone - kept, abs=0.2)


def test_what_cannot_be_planned_for_nvidia_cards_is_refused():
    needs("h100")
    config = read_config([str(ROOT / "configs" / "tiny" / "dpo.yaml"), "--optim.offload", "host"])
    config = replace(config, mesh=type(config.mesh)())
    with pytest.raises(ValueError, match=r"JAX knows no memory of the host .*NVIDIA H100"):
        plan_run(config, target("h100"), "dpo")


def test_the_matrices_of_a_quantised_base_are_planned_as_their_codes():
    needs("v5e-1")
    config = path_of("dpo/mistral_7b_qlora_l4")
    mesh = make_mesh(devices=topology(target("v5e-1")))
    with jax.set_mesh(mesh):
        frozen = [
            bytes_on_one(roles_of(read_config([config, "--model.quant", kind]), mesh).frozen.base)
            for kind in ("none", "int8", "nf4")
        ]
    whole, eight, four = frozen  # embedding and head stay in bfloat16
    tables = 2 * 2 * 32000 * 4096
    assert (eight - tables) / (whole - tables) == pytest.approx(8.13 / 16, rel=1e-3)
    assert (four - tables) / (whole - tables) == pytest.approx(4.13 / 16, rel=1e-3)
