"""A tiny run for the tests that kill it: _loop.py DIRECTORY STEPS."""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.resume import resume
from jalign.train.preemption import ExitCode, Preemption

IDENTITY = {"seed": 1}


def initial():
    return {"w": jnp.zeros((512, 512)), "key": jax.random.key(3), "n": jnp.int32(0)}


@jax.jit
def advance(state):
    n = state["n"] + 1
    return {"w": state["w"] + n, "key": state["key"], "n": n}


def is_as_expected(step, state):
    want = step * (step + 1) / 2
    return int(state["n"]) == step and bool((np.asarray(state["w"]) == want).all())


def main(directory, steps):
    with Checkpointer(directory, keep=2) as checkpointer, Preemption() as preemption:
        preemption.check()
        found = resume(checkpointer, "auto", jax.eval_shape(initial), IDENTITY)
        start, state, meta = found or (0, initial(), {"seen": 0})
        if not is_as_expected(start, state) or meta["seen"] != start:
            sys.exit(f"resumed at {start} with a wrong state")
        print("RESUMED", start, flush=True)
        for step in range(start + 1, start + steps + 1):
            state = advance(state)
            checkpointer.save(step, state, {"identity": IDENTITY, "seen": step})
            print("SAVING", step, flush=True)
            if preemption.reached(step):
                checkpointer.wait()
                print("PREEMPTED", step, flush=True)
                sys.exit(ExitCode.PREEMPTED)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
