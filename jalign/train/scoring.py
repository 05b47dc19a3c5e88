"""Log-probs and values of sampled responses, token by token, as the trainer computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jalign.core import Arrays, Frozen
from jalign.data.examples import Examples, Report
from jalign.layout import Batch
from jalign.parallel import hosts
from jalign.rollout.types import Rollout
from jalign.train.micro_batches import MicroBatchPacker
from jalign.train.objective import ROUTES, Apply, routes_of


def model_fields(apply: Apply, temperature: float) -> Callable[..., Arrays]:
    """`(params, frozen, batch, names) -> {name: [B, K, R]}` for names out of
    `rollout_spec.FROM_MODELS`; jit it with `names` static.
    """

    def read(params: PyTree, frozen: Frozen, batch: Batch, names: tuple[str, ...]) -> Arrays:
        fields, shape = {}, batch.mask.shape
        of_policy = {"old_token_logps": "token_logps", "values": "values"}
        of_policy["old_log_sum_p_squared"] = "log_sum_p_squared"
        # At the sampler's temperature: at another one ratios of equal weights would not be 1.
        if outputs := tuple(of_policy[n] for n in of_policy if n in names):
            options = {"temperature": temperature, **routes_of(batch)}
            out = apply(params, frozen.base, batch.layout, outputs, None, **options)
            fields |= {n: out[o] for n, o in of_policy.items() if n in names}
        if "ref_token_logps" in names:
            outputs = ("token_logps",)
            out = apply(
                frozen.ref, frozen.base, batch.layout, outputs, None, temperature=temperature
            )
            fields["ref_token_logps"] = out["token_logps"]
        return {n: jnp.where(batch.mask, x.reshape(shape), 0.0) for n, x in fields.items()}

    return read


def examples_of(
    rollout: Rollout,
    learned: np.ndarray,
    fields: Mapping[str, np.ndarray] | None = None,
    report: Report | None = None,
) -> Examples:
    """Prompts with their K responses as `Examples`, written to the buffers in one pass.

    Args:
      learned: [B, K]; the tokens of other responses are not scored.
      fields: [B, ...] arrays of numbers that go with the examples.
    """
    (b, k), lengths = learned.shape, rollout.lengths
    prompt_lens = np.array([len(prompt) for prompt in rollout.prompts], np.int64)
    segments = np.concatenate([prompt_lens[:, None], lengths], 1)
    masks = zip(rollout.prompts, rollout.tokens, rollout.mask, strict=True)
    tokens = [x for prompt, ids, mask in masks for x in (prompt, ids[mask])]
    scored = np.concatenate([np.zeros((b, 1), bool), learned], 1)
    fields = dict(fields or {})
    if rollout.experts is not None:
        # Empty slots of a batch are 0.
        fields[ROUTES] = rollout.experts + 1
    return Examples(
        np.concatenate(tokens).astype(np.int32),
        np.repeat(scored.reshape(-1), segments.reshape(-1)),
        np.concatenate([[0], np.cumsum(segments.reshape(-1), dtype=np.int64)]),
        np.arange(b + 1, dtype=np.int64) * (k + 1),
        {name: np.asarray(x, np.float32) for name, x in fields.items()},
        report or Report(read=b, kept=b),
    )


class ResponseScorer:
    """`scorer(rollout, names, params, frozen)`: log-probs and values of responses under a run's
    models.

    Args:
      apply: the model as a pure function.
      temperature: of the log-probs.
      packer: its micro-batches.
      compiler_options: those of the training step (`jalign.kernels.compiler_options`), so that a
        ratio of the same weights is exactly 1.
    """

    def __init__(
        self,
        apply: Apply,
        temperature: float,
        packer: MicroBatchPacker,
        compiler_options: Mapping[str, Any] | None = None,
    ):
        self.packer = packer
        read, compiler_options = model_fields(apply, temperature), dict(compiler_options or {})
        self._read = jax.jit(read, static_argnames="names", compiler_options=compiler_options)

    def __call__(
        self, rollout: Rollout, names: Sequence[str], params: PyTree, frozen: Frozen
    ) -> dict[str, np.ndarray]:
        """{name: [B, K, R]} float32 for names out of `FROM_MODELS`, with R of the packer; 0
        outside responses.
        """
        b, k = rollout.finished.shape
        examples = examples_of(rollout, np.ones((b, k), bool))
        shape = (b, k, self.packer.response_len)
        arrays = {name: np.zeros(shape, np.float32) for name in names}
        for stack in self.packer.pack(examples, range(b), k, b):
            for i in range(int(stack.count)):
                batch = stack.micro_batch(i)
                # Sorted: `names` is static, and another order would compile again.
                out = self._read(params, frozen, batch, names=tuple(sorted(names)))
                index = hosts.gather(batch.extras["index"])
                for name, x in out.items():
                    arrays[name][index[index >= 0]] = hosts.gather(x)[index >= 0]
        return arrays
