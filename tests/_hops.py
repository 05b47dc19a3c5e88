"""The functions that one DPO pair and one GRPO prompt pass from the file to the gradient.

usage: python tests/_hops.py CHECKOUT [--all]

Definition. A real training of the embedded model (one example, batch 1, one step, no evaluation,
checkpoint or sampling) runs under sys.setprofile on all threads.

* It begins with the function of `data/` that opens the training file, and ends with the last
  function of `losses/` that is called before the first step returns.
* Each function of jalign/ counts once, where it is first called: a hop. Comprehensions and module
  bodies do not count.
* Before the training loop only what handles data counts: functions of DATA, and callers of them.
* Calls into the log, checkpoints, hooks, configuration and the like (APART) are dropped with
  everything below them.

Package changes are counted along that order of first calls, a package being a folder of jalign/ or
one of its files; returns into cli are the changes that lead into cli/ after it was left. Helpers
count as much as what they help, so the numbers are two to three times those of a chain picked by
hand; they compare commits, not styles.
"""

import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path

DATA = ("data", "layout", "embedded", "rollout", "rewards", "formats")
SOURCES = ("train/source.py", "train/online.py")
APART = re.compile(
    r"^(log|config|options|store|about|signatures|user_code|plan|bench|checkpoint)(\.py$|/)"
    r"|^train/(checkpoint|manifest|fingerprint|resume|preemption|hooks|stopping|divergence|rounding)"
    r"|^(cli|run)/(summary|runs|folder|identity|described|dated|trainer_log)"
    r"|^parallel/(preflight|deterministic|memory)|^kernels/(backend|devices)"
)
FIT, STEP = "train/loop.py", "train/step.py"


class Calls:
    """Calls of jalign functions of all threads, in order: (path, name, parent, thread)."""

    def __init__(self, package: Path, data_file: str) -> None:
        self.prefix = str(package) + os.sep
        self.data_file = data_file
        self.calls: list[tuple[str, str, int]] = []
        self.returned: dict[int, int] = {}  # call -> how many calls there were when it returned
        self.opened: int | None = None
        self.stacks = threading.local()

    def stack(self) -> list[tuple[object, int]]:
        if not hasattr(self.stacks, "calls"):
            self.stacks.calls = []
        return self.stacks.calls

    def profile(self, frame: object, event: str, _: object) -> None:
        if event not in ("call", "return"):
            return
        path = frame.f_code.co_filename
        if not path.startswith(self.prefix) or frame.f_code.co_name.startswith("<"):
            return
        stack = self.stack()
        if event == "return":
            if stack and stack[-1][0] is frame:
                self.returned[stack.pop()[1]] = len(self.calls)
            return
        parent = stack[-1][1] if stack else -1
        stack.append((frame, len(self.calls)))
        self.calls.append((path.removeprefix(self.prefix), frame.f_code.co_qualname, parent))

    def audit(self, event: str, args: tuple) -> None:
        if event == "open" and self.opened is None and str(args[0]) == self.data_file:
            above = [i for _, i in self.stack() if self.calls[i][0].startswith("data/")]
            self.opened = above[0] if above else None

    def hops(self) -> list[tuple[str, str]]:
        calls, first = self.calls, self.opened
        assert first is not None, "no function of data/ opened the training file"
        fit = next(i for i, (path, name, _) in enumerate(calls) if (path, name) == (FIT, "fit"))
        step = next(i for i, c in enumerate(calls) if c[0] == STEP and i > fit and "step" in c[1])
        losses = [i for i in range(step, self.returned[step]) if calls[i][0].startswith("losses/")]
        apart, data_below = set(), set()
        for i, (path, _, parent) in enumerate(calls):
            if parent in apart or APART.search(path):
                apart.add(i)
            elif path.split("/")[0].removesuffix(".py") in DATA or path in SOURCES:
                while parent >= 0 and parent not in data_below:
                    data_below.add(parent)
                    parent = calls[parent][2]
                data_below.add(i)
        way = (
            calls[i][:2]
            for i in range(first, losses[-1] + 1)
            if i not in apart and (i >= fit or i in data_below)
        )
        return list(dict.fromkeys(way))


def package(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def trace(checkout: Path, algorithm: str) -> list[tuple[str, str]]:
    sys.path.insert(0, str(checkout))
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    from jalign.cli.main import main

    row = {"prompt": "Once upon a time there was a dog.", "chosen": " He ran.", "rejected": " No."}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pairs.jsonl.gz")
        rows = [row] if algorithm == "dpo" else [{"prompt": row["prompt"]}]
        with gzip.open(file, "wt") as out:
            out.writelines(json.dumps(r) + "\n" for r in rows)
        options = {
            "algorithm.name": algorithm, "out": f"{folder}/run", "model.path": "embedded",
            "data.train": str(file), "batch_size": 1, "steps": 1, "data.holdout": 0,
            "eval_every": 0, "checkpoint.every": 0, "optim.schedule": "constant",
        }  # fmt: skip
        if algorithm == "grpo":
            options |= {"rollout.max_new_tokens": 4, "reward.functions": "{repetition: 1.0}"}
        calls = Calls(checkout / "jalign", str(file))
        sys.addaudithook(calls.audit)
        threading.setprofile(calls.profile)
        sys.setprofile(calls.profile)
        try:
            main(["train", *(t for k, v in options.items() for t in (f"--{k}", str(v)))])
        except SystemExit as ending:
            assert not ending.code, f"jalign train ended with {ending.code}"
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return calls.hops()


def is_public(name: str) -> bool:
    """No part of it is private; `__call__` and the like are not."""
    return all(not part.startswith("_") or part.endswith("__") for part in name.split("."))


def summary(algorithm: str, hops: list[tuple[str, str]]) -> str:
    packages = [package(path) for path, _ in hops]
    changes = [b for a, b in pairwise(packages) if a != b]
    files = len({path for path, _ in hops})
    public = sum(is_public(name) for _, name in hops)
    return (
        f"{algorithm}: {len(hops)} hops ({public} public functions) in {files} files, "
        f"{len(changes)} package changes, {changes.count('cli')} returns into cli"
    )


def run() -> None:
    checkout = Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2 and sys.argv[2] in ("dpo", "grpo"):
        hops = trace(checkout, sys.argv[2])
        if "--all" in sys.argv:
            print("\n".join(f"  {path} {name}" for path, name in hops))
        print(summary(sys.argv[2], hops))
        return
    for algorithm in ("dpo", "grpo"):  # a fresh process each: tracing happens once per program
        code = [sys.executable, __file__, str(checkout), algorithm, *sys.argv[2:]]
        environment = os.environ | {"PYTHONPATH": str(checkout), "JAX_COMPILATION_CACHE_DIR": ""}
        subprocess.run(code, check=True, env=environment)


if __name__ == "__main__":
    run()
