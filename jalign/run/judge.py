"""Create a judge from its options: a model in this process, or a server."""

import zlib
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from jalign.data.chat import Template
from jalign.options import LanguageModelConfig
from jalign.rewards.judge import Judge, ModelJudge
from jalign.rewards.server import ServerJudge
from jalign.rollout.groups import respond
from jalign.rollout.sampler import Settings
from jalign.rollout.text import continuation
from jalign.run import folder as runs
from jalign.run.policy import eos_ids


def judge_of(c: LanguageModelConfig, mesh: Mesh) -> Judge:
    """A language model that judges or writes, in this process or on a server."""
    name = c.model or ""
    if c.server:
        return ServerJudge(
            c.server,
            name,
            concurrency=c.concurrency,
            cache=c.cache,
            seed=c.seed,
            prompt_price=c.prompt_price,
            completion_price=c.completion_price,
            timeout_s=c.timeout_s,
            retries=c.retries,
        )
    model, tokenizer, path = runs.language_model(name, mesh)
    split, eos = nnx.split(model), eos_ids(path, tokenizer)

    def generate(ids: Sequence[Sequence[int]], *, max_tokens: int, temperature: float) -> list[str]:
        settings = Settings(max_new_tokens=max_tokens, temperature=temperature, eos=eos)
        rows = [np.asarray(row, np.int32) for row in ids]
        # The key is derived from the prompts, so that a resumed run gets the same answers.
        digest = np.uint32(zlib.crc32(b"".join(row.tobytes() for row in rows)))
        key = jax.random.fold_in(jax.random.key(c.seed or 0), digest)
        # a fixed size: with that of each request every one would compile a program
        rollout = respond(split, rows, settings, key, batch_size=8)
        return [continuation(tokenizer, [], ids.tolist(), eos) for ids in rollout.responses()]

    template = Template.of(tokenizer) if tokenizer.chat_template else None
    return ModelJudge(split, tokenizer, template=template, generate=generate)
