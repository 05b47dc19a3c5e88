"""Sample continuations outside training: of a few texts, or of a file into a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import jax
from transformers import PreTrainedTokenizerBase

from jalign.data.journal import Made, make_file
from jalign.data.records import Message
from jalign.data.templates import template_source
from jalign.data.write import check_name
from jalign.models.decoder import Decoder
from jalign.models.limits import check_rows
from jalign.options.generate import GenerateConfig
from jalign.rewards.model import RewardModel
from jalign.rollout.sampler import Settings
from jalign.rollout.text import generate as generate_texts
from jalign.run import data as build_data
from jalign.run import folder as runs
from jalign.run.best_of_n import best_first
from jalign.run.chat_prompts import Row, as_chats, encode_prompts
from jalign.run.policy import Policy, eos_ids

Say = Callable[[str], None]

# Batches sampled between two writes of the journal: prompts of similar length share a batch, so a
# single batch per write would sort nothing.
BATCHES_PER_WRITE = 4


def generate(
    policy: Policy,
    prompts: Sequence[str | list[Message]],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    responses: int = 1,
    top_k: int | None = None,
    top_p: float = 1.0,
    chat: bool | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> list[str]:
    """Sample continuations; see `Policy.generate`."""
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    limits = {"max_new_tokens": max_new_tokens, "responses": responses, "batch_size": batch_size}
    GenerateConfig(model=policy.path, **limits, **sampling)  # raises for contradictions
    rows, _ = as_chats([{"prompt": x} for x in prompts], len(prompts), policy.tokenizer, chat, None)
    ids = encode_prompts(rows, policy.tokenizer)
    settings = Settings(
        max_new_tokens=max_new_tokens, responses=responses, eos=policy.eos, **sampling
    )
    size = min(batch_size, len(ids))
    key = jax.random.fold_in(jax.random.key(seed), 0)  # as the first rows of a command
    return generate_texts(policy.decoder, policy.tokenizer, ids, settings, key, batch_size=size)


class Generation(NamedTuple):
    """A model and the prompts it is about to continue.

    Attributes:
      rows: rows with a prompt (text or messages), optionally with tools.
      note: tells the user how the chat template is used; may be empty.
      warning: about prompts longer than the model's context; may be empty.
    """

    options: GenerateConfig
    decoder: Decoder
    tokenizer: PreTrainedTokenizerBase
    settings: Settings
    rows: list[Row]
    reward: RewardModel | None
    note: str
    warning: str

    @classmethod
    def of(cls, options: GenerateConfig, say: Say = lambda text: None) -> Generation:
        """Load the model, and the reward model for best-of-n.

        Args:
          say: called with a line about dropped rows.

        Raises:
          ValueError: no prompt, or an option that does not apply to this model or these prompts.
        """
        rows = _rows_of(options, say)
        if options.out:
            check_name(options.out)  # a bad name must not cost a night of sampling
        if not rows:
            raise ValueError("nothing to continue: give a PROMPT or --file")
        # cheap refusals first: a wrong --step must not cost minutes of loading
        check_model(options)
        step = runs.which(options.step)
        reward = runs.reward_model(options.reward) if options.reward else None
        decoder, tokenizer, path = runs.language_model(options.model, step=step)
        if options.template:
            tokenizer.chat_template = template_source(tokenizer, options.template)
        typed = len(options.prompts)
        rows, note = as_chats(rows, typed, tokenizer, options.chat, options.template)
        settings = Settings(
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            eos=eos_ids(path, tokenizer),
            responses=options.best_of or options.responses,
        )
        # JAX raises no error for an index beyond the embedding: this does
        warning = check_rows(
            encode_prompts(rows, tokenizer),
            decoder.spec,
            sampled=options.max_new_tokens,
            tokenizer=tokenizer,
            model=options.model,
        )
        return cls(options, decoder, tokenizer, settings, rows, reward, note, warning or "")

    def sample(self, rows: Sequence[Row], first: int) -> list[Row]:
        """Add `responses` to rows, and `rewards` for best-of-n.

        Args:
          first: index of the first row among all; the random key depends on it.
        """
        # one key per position in the file: a killed call continues with the same random numbers
        key = jax.random.fold_in(jax.random.key(self.options.seed), first)
        # All calls have one batch size, or the last, smaller one would compile a second program.
        size = min(self.options.batch_size, len(self.rows))
        ids = encode_prompts(rows, self.tokenizer)
        texts = generate_texts(
            self.decoder, self.tokenizer, ids, self.settings, key, batch_size=size
        )
        k = self.settings.responses
        sampled = [row | {"responses": texts[i * k : (i + 1) * k]} for i, row in enumerate(rows)]
        return best_first(sampled, self.reward) if self.reward else sampled

    def __call__(self) -> Iterator[Row]:
        """All rows with their responses."""
        yield from self.sample(self.rows, 0)

    def write(self, say: Say = lambda text: None) -> list[Row]:
        """Sample all rows into `options.out`; calling it again after a kill continues."""
        assert self.options.out is not None

        def make(rows: Sequence[Row], first: int, _: Any) -> list[Made]:
            return [Made([row], []) for row in self.sample(rows, first)]

        size = BATCHES_PER_WRITE * min(self.options.batch_size, len(self.rows))
        identity = asdict(self.options)
        for name in ("prompts", "file", "limit", "out"):  # the rows replace the first three
            del identity[name]
        return make_file(self.options.out, self.rows, make, identity=identity, size=size, say=say)[
            0
        ]


def check_model(options: GenerateConfig) -> None:
    """Raise ValueError if --step is given for a model that is not a run."""
    if options.step is not None and not runs.is_run(options.model):
        raise ValueError(f"--step names a checkpoint of a run; {options.model} is not a run")
    runs.which(options.step)


def _rows_of(options: GenerateConfig, say: Say) -> list[Row]:
    rows: list[Row] = [{"prompt": text} for text in options.prompts]
    if options.file:
        content = build_data.rows_of(options.file, "train")[: options.limit or None]
        for record in build_data.prompt_records(content, say):
            rows.append(
                {"prompt": record.prompt} | ({"tools": record.tools} if record.tools else {})
            )
    return rows
