"""jalign's loss curve beside TRL's: the same weights, token ids, order and SGD; the largest
difference is printed.

    python tests/peers/trl_curve.py dpo MODEL DATA OUT.json     # in an environment with trl
    python tests/peers/compare_trl.py OUT.json                  # in jalign's
"""

import argparse
import json

import jax
import numpy as np

from jalign import algorithms
from jalign.core import Frozen
from jalign.data.batch_spec import BatchSpec
from jalign.data.examples import Example, Examples, Report
from jalign.data.pipeline import Batches
from jalign.models import hub
from jalign.models.adapters.lora import trainable_filter
from jalign.models.functional import functional
from jalign.optim.optimizer import make_optimizer
from jalign.parallel.mesh import make_mesh
from jalign.train.source import Offline
from jalign.train.state import init_state, reference_copy
from jalign.train.step import make_train_step

parser = argparse.ArgumentParser()
parser.add_argument("trl", help="what trl_curve.py wrote")
parser.add_argument("--layout", default="flat", choices=["flat", "padded"])
options = parser.parse_args()
with open(options.trl, encoding="utf-8") as file:
    trl = json.load(file)


def example(row: dict) -> Example:
    ids = {name: np.array(x, np.int32) for name, x in row.items()}
    if trl["kind"] == "dpo":
        prompt, responses = ids["prompt_ids"], (ids["chosen_ids"], ids["rejected_ids"])
    else:
        prompt, responses = ids["input_ids"][:1], (ids["input_ids"][1:],)
    return Example(prompt, responses, tuple(np.ones(len(r), bool) for r in responses), {})


examples = Examples.from_list([example(row) for row in trl["ids"]], Report())
row, mesh = algorithms.get(trl["kind"]), make_mesh(fsdp=-1)
model = hub.load(trl["model"], mesh=mesh)
apply, params, base = functional(model, trainable_filter(model))
optimizer = make_optimizer("sgd", trl["lr"], clip_norm=None)
jax.set_mesh(mesh)
batches = Batches(examples, BatchSpec(trl["batch"], shuffle=False, layout=options.layout))
source = Offline(batches, mesh)
state = init_state(mesh, params, optimizer, row, seed=0)
frozen = Frozen(base, reference_copy(params, model.dtype) if row.needs_reference() else None)
step = jax.jit(make_train_step(row, apply, optimizer), donate_argnums=0)
losses = []
for _ in range(trl["steps"]):
    state, metrics = step(state, frozen, source(state, frozen))
    losses.append(float(metrics["loss"]))
difference = np.abs(np.array(losses) - np.array(trl["losses"]))
print("step  jalign      trl")
for i, (a, b) in enumerate(zip(losses, trl["losses"], strict=True)):
    print(f"{i + 1:4d}  {a:.6f}  {b:.6f}")
print(f"largest difference {difference.max():.2e} over {len(losses)} steps ({options.layout})")
