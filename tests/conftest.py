"""Every test sees 8 CPU devices, whatever the machine has, and shapes as the signatures say."""

import atexit
import os
import shutil
import tempfile

from tests._xla import EVERYWHERE, QUICK

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8 " + QUICK
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # what one run compiles, the next ones reuse,
    # also in the processes that tests start and in those of a parallel run
    _programs = tempfile.mkdtemp(prefix="jalign-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    atexit.register(shutil.rmtree, _programs, ignore_errors=True)

import pytest
from jaxtyping import install_import_hook

# Before anything imports them: what is imported already stays unchecked.
CHECKED = ["losses", "advantages", "experience", "kernels", "models", "rollout"]
install_import_hook([f"jalign.{part}" for part in CHECKED], "beartype.beartype")

CHILDREN = os.path.join(os.path.dirname(__file__), "children")

# Files that take longest, and are started first: whole runs, and compilers for absent hardware.
LONG = (
    "several_processes", "online", "front_door", "example_scripts", "configs", "runs", "roles",
    "plan", "stop", "readme", "exit_codes", "object_store", "benchmarks", "leaderboard",
    "cli_reward", "memory_options", "cli", "cli_merge", "cli_pipeline", "cli_feedback",
)  # fmt: skip


# Compiling takes most of the tests' time, and they compute little with what they compile. So most
# optimizations are left out, but in files that look at a program's memory, ask other compilers,
# compare losses near 0 between programs or train many steps, and for the step and the sampler.
# JALIGN_OPTIMIZED=all compiles as users do everywhere.
OPTIMIZED = (
    "plan", "targets", "traffic", "attention", "flat", "divergence", "score", "logprobs",
    "nf4", "several_processes", "configs", "step", "sampler", "batch_invariant",
    "batch_invariant_on_tpu",
)  # fmt: skip

# Left out by --fast: runs, processes, compilers for absent hardware, and what compiles models.
SLOW = (
    *LONG, "own_algorithm", "pitfalls", "run_model", "cli_export",
    "judged_rewards", "response_end", "token_limits", "summary", "described", "launch", "ending",
    "checkpoint", "step", "hosts", "preemption", "diverged_runs", "missing_rewards", "offload",
    "weight", "compiler_options", "moments", "hooks", "judge", "reward_model", "process_model",
    "transformers_serve", "server", "sampler", "refill", "steps", "embedded", "report", "compile",
    "targets", "traffic", "batch_invariant", "batch_invariant_on_tpu",
)  # fmt: skip
SLOW_FOLDERS = ("models", "kernels", "serve", "faults", "peers")


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="leave out the files of SLOW")


def pytest_ignore_collect(collection_path, config):
    """`--fast` does not even import them."""
    slow = (
        collection_path.stem.removeprefix("test_") in SLOW
        or collection_path.parent.name in SLOW_FOLDERS
    )
    return True if config.getoption("--fast") and slow else None


def pytest_configure(config):
    """`--dist loadfile` would start the files with most tests first; the longest ones have few."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    order = {f"test_{name}.py": position for position, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model and preference pairs, for runs that `tests.tiny_run.arguments` describes."""
    from tests.tiny_run import write_model, write_pairs

    folder = tmp_path_factory.mktemp("tiny")
    write_model(folder / "model")
    write_pairs(folder / "pairs.jsonl.gz")
    return folder


@pytest.fixture(scope="module")
def quick():
    """One device and a rolled loop over layers compile faster; other tests see to the rest."""
    import jax

    from jalign.models import hub
    from jalign.parallel.mesh import make_mesh

    mesh, load = make_mesh(devices=jax.devices()[:1]), hub.load

    def rolled(*args, **options):
        model = load(*args, **options)
        model.unroll = False
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jalign.run.devices.make_mesh", lambda *sizes: mesh)
        patch.setattr(hub, "load", rolled)
        yield


@pytest.fixture(autouse=True, scope="module")
def _children(request):
    """The processes that a test starts have no torch; only `transformers serve` needs it."""
    kept = [path for path in (os.environ.get("PYTHONPATH"),) if path]
    with pytest.MonkeyPatch.context() as patch:
        if request.path.stem != "test_transformers_serve":
            patch.setenv("PYTHONPATH", os.pathsep.join([CHILDREN, *kept]))
        yield


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs(request):
    """They are forgotten after a file, since thousands of tests would keep gigabytes of them."""
    import jax

    quick = not EVERYWHERE and request.path.stem.removeprefix("test_") not in OPTIMIZED
    variable = "JAX_DISABLE_MOST_OPTIMIZATIONS"
    with pytest.MonkeyPatch.context() as patch:  # also for the processes that a test starts
        if quick:
            patch.setenv(variable, "1")
        jax.config.update(variable.lower(), quick)
        yield
    jax.config.update(variable.lower(), False)
    jax.clear_caches()
