"""`jalign sample MODEL [PROMPT ...]`: continuations, to the terminal or to a file."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.text import Text

from jalign.cli import best_of
from jalign.config.read import parsed
from jalign.data.chat import Template
from jalign.data.journal import Made, make_file
from jalign.data.templates import template_source
from jalign.data.write import check_name
from jalign.models.limits import check_rows
from jalign.rewards.label import text_of
from jalign.rollout.sampler import Settings
from jalign.rollout.text import generate, prompt_ids
from jalign.run import data as build_data
from jalign.run import folder as runs
from jalign.run.policy import eos_ids

LOT = 4  # batches that are sampled before they are kept: prompts of like length go together


def parser() -> ArgumentParser:
    """The options of `jalign sample`."""
    result = ArgumentParser(prog="jalign sample", description=sample.__doc__, exit_on_error=False)
    add = result.add_argument
    add("model", help="folder, hub name, run folder, or embedded")
    add(
        "prompts",
        nargs="*",
        help="what to ask a chat model, or texts to continue; none with --file",
    )
    add("--step", type=str | None, default=None, help=runs.STEP_HELP)
    add(
        "--file",
        default=None,
        help="rows with prompts (texts or messages) to continue; or embedded",
    )
    add(
        "--out",
        default=None,
        help="jsonl or jsonl.gz to write rows to; a killed command goes on when it is given again",
    )
    add(
        "--template",
        default=None,
        help="a chat template instead of the tokenizer's: a built-in one or a .jinja file",
    )
    add(
        "--chat",
        type=bool | None,
        nargs="?",
        const=True,
        default=None,
        help="put texts into the chat template as what the user says; false: continue them as they "
        "are; not given: PROMPTs go into it where there is one, the texts of --file do not",
    )
    add("--limit", type=int, default=0, help="first so many prompts of the file; 0: all")
    add("--responses", type=int, default=1, help="continuations per prompt")
    add("--max_new_tokens", type=int, default=128)
    add("--temperature", type=float, default=0.0, help="0 is greedy")
    add("--top_k", type=int | None, default=None)
    add("--top_p", type=float, default=1.0)
    add("--batch_size", type=int, default=32, help="prompts per call")
    add("--seed", type=int, default=0)
    add(
        "--best_of",
        "--best-of",
        type=int | None,
        default=None,
        help="sample so many per prompt and show the one with the highest reward; a file gets all "
        "that are not empty, the best first, with their rewards",
    )
    add(
        "--reward",
        default=None,
        help="what gives the rewards: the run of a reward model, or its exported folder",
    )
    return result


def check(options: Any) -> Any:
    """The options, if they fit each other."""
    best_of.check(options)
    if options.step is not None and not runs.is_run(options.model):
        raise ValueError(f"--step chooses a checkpoint of a run, and {options.model} is none")
    runs.which(options.step)
    chosen = options.responses > 1 or options.top_k is not None or options.top_p < 1
    if options.temperature == 0 and chosen:
        raise ValueError("--responses, --top_k and --top_p need a --temperature above 0")
    if options.batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {options.batch_size}")
    return options


def check_args(args: Sequence[str]) -> Any:
    """What can be known to be wrong before anything is loaded."""
    return check(parsed(parser(), args, lambda values: values))


def sample(args: Sequence[str], console: Console) -> None:
    """Continue texts with a model folder, a hub name, "embedded", or the newest (or a given)
    checkpoint of a run.
    """
    options = parsed(parser(), args, lambda values: values)
    asked: list[dict[str, Any]] = [{"prompt": text} for text in options.prompts]
    if options.file:
        rows = build_data.rows_of(options.file, "train")
        say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
        for record in build_data.prompt_records(rows[: options.limit or None], say):
            tools = {"tools": record.tools} if record.tools else {}
            asked.append({"prompt": record.prompt} | tools)
    if options.out:
        check_name(options.out)  # before anything is sampled
    if not asked:
        raise ValueError("nothing to continue: give a PROMPT or --file")
    check(options)
    reward = runs.reward_model(options.reward) if options.reward else None
    decoder, tokenizer, path = runs.language_model(options.model, step=runs.which(options.step))
    if options.template:
        tokenizer.chat_template = template_source(tokenizer, options.template)
    asked, note = as_chats(asked, len(options.prompts), tokenizer, options.chat, options.template)
    if note:  # not among the answers, which may go into a pipe
        Console(stderr=True).print(note, markup=False, highlight=False, soft_wrap=True)
    read = reader(tokenizer, [row["prompt"] for row in asked])
    settings = Settings(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        eos=eos_ids(path, tokenizer),
        responses=options.best_of or options.responses,
    )
    size = min(options.batch_size, len(asked))
    ids = [read(row) for row in asked]
    new = options.max_new_tokens
    where = {"tokenizer": tokenizer, "model": options.model}
    if warning := check_rows(ids, decoder.spec, sampled=new, **where):
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)

    def make(some: Sequence[Any], first: int, _: Any) -> list[Made]:
        key = jax.random.fold_in(jax.random.key(options.seed), first)
        texts = generate(decoder, tokenizer, list(map(read, some)), settings, key, batch_size=size)
        k = settings.responses
        rows = [row | {"responses": texts[i * k : (i + 1) * k]} for i, row in enumerate(some)]
        return [Made([row], []) for row in (best_of.best_first(rows, reward) if reward else rows)]

    if options.out:
        say = partial(console.print, markup=False, highlight=False)
        rows, _ = make_file(
            options.out, asked, make, identity=_identity(options), size=LOT * size, say=say
        )
        count = sum(len(row["responses"]) for row in rows)
        console.print(f"{count} continuations written to {options.out}", highlight=False)
        return
    for row in (row for made in make(asked, 0, []) for row in made.rows):
        for text in best_of.shown(row) if reward else row["responses"]:
            # a text that goes on is one with its prompt, where colors tell them apart
            joined = console.is_terminal and isinstance(row["prompt"], str)
            between = "" if joined else "\n-- response\n"
            # no str: what looks like markup in a text is text
            console.print(Text.assemble((text_of(row["prompt"]), "dim"), between, text, "\n"))


def _identity(options: Any) -> dict[str, Any]:
    """What decides, beside the prompts, which rows are written."""
    names = set(options.as_dict()) - {"prompts", "file", "limit", "out"}
    return {name: options[name] for name in sorted(names)}


def as_chats(
    asked: Sequence[dict[str, Any]],
    typed: int,
    tokenizer: Any,
    chat: bool | None,
    template: str | None,
) -> tuple[list[dict[str, Any]], str]:
    """What is asked, texts as a user's message where they go into the chat template, and what
    people should know of that.

    Args:
      asked: prompts; the first `typed` of them were typed, the others come from a file.
      chat: whether texts go into the template; None: those that were typed, where there is one, and
        all where a template was given.
      template: what was given as --template.
    """
    texts = [isinstance(row["prompt"], str) for row in asked]
    if chat and any(texts) and not tokenizer.chat_template:
        raise ValueError("--chat needs a chat template and the tokenizer has none: give --template")
    if template and chat is False and all(texts):
        raise ValueError(f"--template {template} cannot apply: the prompts are texts, not messages")
    every = bool(template) if chat is None else chat
    first = bool(tokenizer.chat_template) and chat is not False
    asks = [text and (every or (first and i < typed)) for i, text in enumerate(texts)]
    rows = [
        {**row, "prompt": [{"role": "user", "content": row["prompt"]}]} if ask else dict(row)
        for row, ask in zip(asked, asks, strict=True)
    ]
    if chat is None and any(asks):
        return rows, "texts are asked by the chat template; --chat false continues them as they are"
    if chat is None and any(texts) and tokenizer.chat_template:
        return rows, "texts of --file are continued as they are; --chat asks by the chat template"
    return rows, ""


def reader(tokenizer: Any, prompts: Sequence[Any]) -> Callable[[dict[str, Any]], list[int]]:
    """The ids that the model reads of a row: a text as the tokenizer reads it, messages as the chat
    template writes them.
    """
    chat = not all(isinstance(prompt, str) for prompt in prompts)
    template = Template.of(tokenizer) if chat else None

    def read(row: dict[str, Any]) -> list[int]:
        if template is None or isinstance(row["prompt"], str):
            return prompt_ids(tokenizer, row["prompt"])
        text = template.render(row["prompt"], row.get("tools"), open_turn=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return read
