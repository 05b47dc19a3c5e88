"""The functions that are handed one DPO pair or one GRPO prompt on its way to the gradient.

usage: python tests/_hops.py CHECKOUT [--all]

Definition. A real training of the embedded model (one example of rare words, batch 1, one step, no
evaluation or sampling) runs under sys.setprofile on all threads. A function of jalign/ is a hop if
it is handed the example and hands it on. It is handed the example if an argument of a call carries
it: a text with a rare word, an array with the id of one, a container or a data object of either,
or, once the training loop has begun, a traced array. It hands the example on if its result carries
it, or an argument that did not before, or if it calls a hop; a function that only looks at the
example (a check, a count, a reward) is none. A hop counts once, where it is first called; the last
one is the last function of `losses/`. Calls into the log, checkpoints, hooks and configuration
(APART) do not count.

Package changes are counted along that order, a package being a folder of jalign/ or one of its
files; returns into cli are the changes that lead into cli/.
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
from types import FrameType

import numpy as np

RARE = ("Zanzibar", "Kilimanjaro", "Ouagadougou")
ROW = {
    "prompt": f"Once upon a time {RARE[0]} was a dog.",
    "chosen": f" He ran {RARE[1]}.",
    "rejected": f" No {RARE[2]}.",
}
APART = re.compile(
    r"^(log|config|options|store|about|signatures|user_code|plan|bench|checkpoint)(\.py$|/)"
    r"|^train/(checkpoint|manifest|fingerprint|resume|preemption|hooks|stopping|divergence|rounding)"
    r"|^(cli|run)/(summary|runs|folder|identity|described|dated|limits|check_tokens)"
    r"|^parallel/(preflight|deterministic|memory)|^kernels/(backend|devices)"
)
HOLDERS = re.compile(
    r"^jalign\.(data|rollout|layout|core|train\.(source|online)|\w+\.(prompts|reward_parts))"
)
"""Modules whose objects may hold the example in an attribute."""
Hop = tuple[str, str]
"""The file and the function."""
LARGEST = 100_000  # entries of an array that is looked through: weights are larger
DEPTH, WIDTH = 3, 20  # of containers that are looked through


class Example:
    """Recognizes the example wherever it is passed."""

    def __init__(self, rare_ids: set[int]) -> None:
        self.ids, self.traced = rare_ids, False

    def carried_by(self, x: object, depth: int = 0) -> bool:
        """Whether `x` is or holds the example."""
        import jax

        if isinstance(x, str):
            return any(word in x for word in RARE)
        if isinstance(x, jax.core.Tracer):
            return self.traced
        if isinstance(x, np.ndarray | jax.Array):
            kind = getattr(x.dtype, "kind", "")  # a random key has none
            if kind not in ("i", "u") or x.size > LARGEST:
                return False
            return bool(np.isin(np.asarray(x), list(self.ids)).any())
        if depth == DEPTH:
            return False
        if isinstance(x, list | tuple) and x and isinstance(x[0], int):
            return any(i in self.ids for i in x if isinstance(i, int))
        if isinstance(x, dict):
            parts = list(x.values())
        elif isinstance(x, list | tuple):
            parts = list(x)
        elif HOLDERS.match(type(x).__module__):
            parts = list(getattr(x, "__dict__", {}).values())
        else:
            return False
        return any(self.carried_by(part, depth + 1) for part in parts[:WIDTH])


class Way:
    """The hops of one run; `profile` is its profile function."""

    def __init__(self, prefix: str, example: Example) -> None:
        self.prefix, self.example = prefix, example
        self.order: dict[Hop, None] = {}  # handed the example, in the order of their first calls
        self.handed_on: set[Hop] = set()
        self.calls = threading.local()  # per thread: the open calls of hops

    def profile(self, frame: FrameType, event: str, result: object) -> None:
        if event not in ("call", "return") or not frame.f_code.co_filename.startswith(self.prefix):
            return
        stack = self.calls.__dict__.setdefault("stack", [])
        if event == "call":
            self._called(frame, stack)
        elif stack and stack[-1][0] is frame:
            _, hop, carried = stack.pop()
            if hop not in self.handed_on and self._hands_on(frame, carried, result):
                self.handed_on.add(hop)
            if stack and hop in self.handed_on:
                self.handed_on.add(stack[-1][1])

    def _called(self, frame: FrameType, stack: list[tuple[FrameType, Hop, list[bool]]]) -> None:
        path = frame.f_code.co_filename.removeprefix(self.prefix)
        hop = path, frame.f_code.co_qualname
        self.example.traced |= hop == ("train/loop.py", "fit")
        if frame.f_code.co_name.startswith("<") or APART.search(path) or hop in self.handed_on:
            return
        carried = self._carried(frame)
        if any(carried):
            self.order.setdefault(hop)
            stack.append((frame, hop, carried))

    def _hands_on(self, frame: FrameType, carried: list[bool], result: object) -> bool:
        """Whether its result, or an argument that did not carry the example before, carries it."""
        if self.example.carried_by(result):
            return True
        pairs = zip(self._carried(frame), carried, strict=True)
        return any(now and not before for now, before in pairs)

    def _carried(self, frame: FrameType) -> list[bool]:
        """Of each argument, whether it carries the example."""
        code = frame.f_code
        # co_flags: 4 is *args, 8 is **kwargs
        count = code.co_argcount + code.co_kwonlyargcount
        count += bool(code.co_flags & 4) + bool(code.co_flags & 8)
        names = code.co_varnames[:count]
        try:
            return [self.example.carried_by(frame.f_locals.get(name)) for name in names]
        except RuntimeError:  # a deleted (donated) array holds nothing
            return [False] * len(names)


def rare_ids(model: str) -> set[int]:
    """Ids of tokens that only the rare words have."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    text = " ".join(ROW.values())
    plain = re.sub("|".join(RARE), "", text)
    return {*tokenizer(text)["input_ids"]} - {*tokenizer(plain)["input_ids"], 0, 1, 2, 3}


def trace(checkout: Path, algorithm: str) -> list[Hop]:
    sys.path.insert(0, str(checkout))
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    from jalign import embedded
    from jalign.cli.main import main

    example = Example(rare_ids(str(embedded.path())))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pairs.jsonl.gz")
        row = ROW if algorithm == "dpo" else {"prompt": ROW["prompt"]}
        file.write_bytes(gzip.compress(json.dumps(row).encode() + b"\n"))
        options = {
            "algorithm.name": algorithm, "out": f"{folder}/run", "model.path": "embedded",
            "data.train": str(file), "batch_size": 1, "steps": 1, "data.holdout": 0,
            "eval_every": 0, "checkpoint.every": 0, "optim.schedule": "constant", "mesh.fsdp": 1,
        }  # fmt: skip
        if algorithm == "grpo":
            options |= {"rollout.max_new_tokens": 4, "reward.functions": "{repetition: 1.0}"}
        way = Way(str(checkout / "jalign") + os.sep, example)
        threading.setprofile(way.profile)
        sys.setprofile(way.profile)
        try:
            main(["train", *(t for k, v in options.items() for t in (f"--{k}", str(v)))])
        except SystemExit as ending:
            assert not ending.code, f"jalign train ended with {ending.code}"
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    ordered = [hop for hop in way.order if hop in way.handed_on]
    last = max(i for i, (path, _) in enumerate(ordered) if path.startswith("losses/"))
    return ordered[: last + 1]


def package(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


STEP = ("core", "formats", "kernels", "layout", "losses", "models", "parallel")


def summary(algorithm: str, hops: list[Hop]) -> str:
    packages = [package(path) for path, _ in hops]
    changes = [b for a, b in pairwise(packages) if a != b]
    steps = ("train/step.py", "train/objective.py")
    step = sum(package(path) in STEP or path in steps for path, _ in hops)
    return (
        f"{algorithm}: {len(hops)} hops ({step} of the step and the model, {len(hops) - step} "
        "outside), "
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
