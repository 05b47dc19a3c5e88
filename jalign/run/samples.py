"""Sample continuations of held-out prompts during training."""

from collections.abc import Callable

import jax
import numpy as np

from jalign.core import Frozen, TrainState
from jalign.data.examples import Examples
from jalign.options import RunOptions
from jalign.parallel import hosts
from jalign.rollout.sampler import Settings, sample
from jalign.rollout.text import continuation
from jalign.run.policy import eos_ids
from jalign.run.roles import Roles


def sample_prompts(options: RunOptions, held: Examples | None) -> list[tuple[int, np.ndarray]]:
    """(example index, ids) of the first `sample.prompts` distinct held-out prompts."""
    prompts: dict[bytes, tuple[int, np.ndarray]] = {}
    for i, example in enumerate(held or ()):
        if len(prompts) == options.sample.prompts:
            break
        if len(example.prompt):
            # several pairs may share a prompt, and greedy texts of it would be the same
            prompts.setdefault(example.prompt.tobytes(), (i, example.prompt))
    return list(prompts.values())


def generator_of(
    options: RunOptions, roles: Roles, held: Examples | None
) -> Callable[[TrainState, Frozen], list[dict[str, str]]]:
    """`(state, frozen) -> rows of prompt and continuation` for the first held-out prompts."""
    c, tokenizer = options.sample, roles.tokenizer
    prompts = [prompt for _, prompt in sample_prompts(options, held)]
    if not prompts:
        raise ValueError("sample.prompts needs held-out examples with prompts; there are none")
    lengths = np.array([len(p) for p in prompts])
    tokens = np.zeros((len(prompts), lengths.max()), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    settings = Settings(
        max_new_tokens=c.max_new_tokens,
        temperature=c.temperature,
        eos=eos_ids(roles.path, tokenizer),
    )

    def generate(state: TrainState, frozen: Frozen) -> list[dict[str, str]]:
        del frozen
        # the same at every step: texts differ by the weights alone
        key = jax.random.fold_in(jax.random.key(options.seed), 2)
        out = sample(roles.sampling_weights(state.params), tokens, lengths, key, settings)
        ids, mask = hosts.gather(out.tokens), hosts.gather(out.mask)
        return [
            {
                "prompt": tokenizer.decode(p, skip_special_tokens=True),
                "continuation": continuation(tokenizer, p.tolist(), i[m].tolist(), settings.eos),
            }
            for p, i, m in zip(prompts, ids, mask, strict=True)
        ]

    return generate
