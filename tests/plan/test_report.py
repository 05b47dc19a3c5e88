"""What a plan says of a whole run, and which models it knows; nothing is compiled."""

import json
from pathlib import Path

import jax
import pytest

from jalign.config.read import read_config
from jalign.models.families import family_of
from jalign.parallel.mesh import make_mesh
from jalign.plan import architectures, work
from jalign.plan import data as plan_data
from jalign.plan.compile import Memory, Program
from jalign.plan.report import Report
from jalign.plan.roles import roles_of
from jalign.plan.run import passes
from jalign.plan.schedule import timeline
from jalign.plan.targets import target


def test_every_model_that_is_known_has_as_many_parameters_as_its_card_says():
    billions = {
        "meta-llama/Llama-3.2-1B-Instruct": 1.236,
        "meta-llama/Llama-3.2-3B": 3.213,
        "HuggingFaceTB/SmolLM2-135M-Instruct": 0.1345,
        "HuggingFaceTB/SmolLM2-1.7B": 1.711,
        "Qwen/Qwen2.5-0.5B": 0.494,
        "Qwen/Qwen2.5-7B-Instruct": 7.615,
        "Qwen/Qwen3-4B": 4.022,
        "mistralai/Mistral-7B-Instruct-v0.3": 7.248,
        "microsoft/Phi-3-mini-4k-instruct": 3.821,
        "microsoft/phi-4": 14.659,
        "google/gemma-3-1b-it": 1.0,
        "Qwen/Qwen3-30B-A3B": 30.53,
        "openai/gpt-oss-20b": 20.91,
        "mistralai/Mixtral-8x7B-v0.1": 46.70,
        "allenai/OLMoE-1B-7B-0924": 6.92,
    }
    known = architectures.known()
    specs = {name: family_of(config).spec(config) for name, config in known.items()}
    for name, count in billions.items():
        assert work.parameters(specs[name]) / 1e9 == pytest.approx(count, rel=2e-3), name


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--algorithm", "dpo"], 3),
        (["--algorithm", "dpo", "--model.remat", "full"], 4),
        (["--algorithm", "dpo", "--reference", "cached"], 2),
        (["--algorithm", "simpo"], 2),
        # scored with the reference once per rollout, before the steps
        (["--algorithm", "grpo", "--steps", "2", "--reward.functions", "{repetition: 1}"], 2),
    ],
)
def test_a_micro_batch_reads_the_weights_once_per_pass(words, count):
    assert passes(read_config(words)) == count


def report(**numbers):
    memory = Memory(1e9, 1e9, 1e9, 1e9, 1e6, 2e9)
    programs = [Program("train step", memory)]
    base = {"programs": programs, "beside": [0.0], "tokens": 4096}
    return Report("x.yaml", target("v5e-8"), {}, {}, **base | numbers)


def test_a_plan_says_how_long_the_run_takes_and_what_its_checkpoints_need():
    peak = target("v5e-8").accelerator.flops * 8
    found = report(flops=(0.4 * peak * 2.0, 0.0), steps=5400, saved=3 * 2**30, kept=3)
    text = "\n".join(found.lines())
    assert "2 s a step; 5400 steps 3 hours, evaluations and compiling aside" in text
    assert "a checkpoint: 3 GiB on disk, at most 3 of them at once: 9 GiB" in text
    record = json.loads(json.dumps(found.record()))
    assert record["run"]["training_s_at_40_mfu"] == pytest.approx(10800)
    assert record["checkpoints"]["gib_on_disk"] == 9
    online = report(flops=(0.4 * peak, 0.0), steps=100, rollouts=50, sampling_s=4.0)
    assert "to sample 50 rollouts comes on top, 3.33 minutes at least" in "\n".join(online.lines())
    assert "the number of steps is unknown" in "\n".join(report().lines())


def test_steps_follow_from_data_that_are_here_and_are_unknown_of_others(tmp_path):
    rows = [{"prompt": f"p{i}", "completion": "c"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    args = ["--algorithm.name", "sft", "--batch_size", "2", "--epochs", "3", "--data.holdout", "0"]
    here = read_config([*args, "--data.train", str(tmp_path / "rows.jsonl")])
    assert plan_data.steps_of(here) == 15
    assert plan_data.steps_of(read_config([*args, "--data.train", "some/dataset"])) == 0
    assert plan_data.steps_of(read_config([*args, "--steps", "7"])) == 7


@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_useful_work_is_that_of_the_tokens_of_examples_and_not_of_empty_slots(layout):
    lengths = ["--data.max_prompt_len", "20", "--data.max_response_len", "12"]
    args = ["--algorithm.name", "dpo", "--batch_size", "3", "--steps", "1", *lengths]
    config = read_config([*args, "--data.layout", layout])
    mesh = make_mesh(1, -1, 1, 1, devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        spec = roles_of(config, mesh).model.decoder.spec
        data = plan_data.offline_data(config, mesh, spec)
    prompts = 2 if layout == "padded" else 1  # copies of a prompt
    used = work.Rows(3 * (prompts * 20 + 2 * 12), 0, 1, 3 * 2 * 12), work.Rows(0, 3 * 2, 32, 0)
    assert sorted(plan_data.used_rows(data)) == sorted(used)
    (slots,) = plan_data.rows_of(data)
    assert slots.tokens > used[0].tokens and slots.rows * slots.row_len > 3 * 2 * 32
    useful, computed = plan_data.step_flops(config, spec, data)
    assert useful == work.step(spec, used, adapters=False, reference=True)[0] < computed


def test_a_judge_in_this_process_is_counted():
    args = ["--algorithm.name", "grpo", "--steps", "1", "--reward.judge.ask", "score"]
    config = read_config([*args, "--reward.judge.model", "Qwen/Qwen2.5-0.5B"])
    mesh = make_mesh(1, -1, 1, 1, devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        judge = roles_of(config, mesh).judge
    assert judge is not None and judge.embed.weight.shape == (151936, 896)
    assert judge.embed.weight.dtype == "float32"
    asked = [*args, "--reward.judge.model", "m", "--reward.judge.server", "http://localhost:1/v1"]
    with jax.set_mesh(mesh):
        assert roles_of(read_config(asked), mesh).judge is None


def test_a_report_says_seconds_tokens_and_mfu():
    memory = Memory(1.0, 1.0, 0.0, 1.0, 1.0, 2.0)
    program = Path(__file__).parent / "programs" / "collective_matmul_v5e8.hlo"
    t = timeline(program.read_text(), target("v5e-8").accelerator)
    step = Program("train step", memory, timeline=t)
    numbers = {"programs": [step], "beside": [0.0], "tokens": 4096, "flops": (8e9, 9e9)}
    report = Report("c", target("v5e-8"), {}, {}, **numbers)
    predicted = report.record()["step"]["predicted"]
    assert predicted["step_s"] == pytest.approx(t.seconds)  # v5e is not calibrated
    assert predicted["tokens_per_s"] == pytest.approx(4096 / t.seconds)
    assert predicted["mfu"] == pytest.approx(8e9 / (t.seconds * 8 * 197e12))
    text = "\n".join(report.lines())
    assert "  predicted: 0.000234 s a step, 1.748e+07 tokens/s, MFU 2.2%, " in text
    assert "not calibrated on this generation" in text
    assert report.record()["programs"][0]["predicted"]["costs"][0]["line"] == "models/linear.py:7"


def test_a_report_without_a_timeline_predicts_nothing():
    assert report().predicted is None and "predicted:" not in "\n".join(report().lines())
