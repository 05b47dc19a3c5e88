"""Saves on a disk that fills up, is freed, and fills up for good: _full_disk.py DIRECTORY."""

import logging
import resource
import sys
import time

import jax.numpy as jnp
import numpy as np

from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.errors import CheckpointError
from jalign.train.preemption import ExitCode

NOISE = jnp.asarray(np.random.default_rng(0).normal(size=(256, 256)), jnp.float32)
_, HARD = resource.getrlimit(resource.RLIMIT_FSIZE)


def file_limit(n_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, HARD))  # a write beyond it is an OSError


def main(directory):
    logging.basicConfig(stream=sys.stdout)
    checkpointer = Checkpointer(directory)
    retries = []
    try:
        for step in range(1, 12):
            if checkpointer.needs_retry():
                retries.append(step)
            full = step in (3, 4) or step >= 7
            file_limit(20_000 if full else HARD)
            checkpointer.save(step, {"w": NOISE + step}, {})
            if full:
                for _ in range(50):  # steps go by until the failure is known
                    if checkpointer.needs_retry():
                        break
                    time.sleep(0.01)
            else:
                checkpointer.wait()
    except CheckpointError as e:
        file_limit(HARD)
        print("ENDED", step, "retried", retries, e)
        sys.exit(ExitCode.CHECKPOINT_FAILED)


if __name__ == "__main__":
    main(sys.argv[1])
