"""`jalign sample MODEL [PROMPT ...]`: continuations, to the terminal or to a file."""

from collections.abc import Sequence

import jax
from flax import nnx
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from jalign.cli import best_of, build, runs
from jalign.data import sources
from jalign.data.chat import load_tokenizer
from jalign.data.write import check_name, write
from jalign.models import hub
from jalign.models.decoder import Decoder
from jalign.rollout.sampler import Settings, generate


def sample(args: Sequence[str], console: Console) -> None:
    """Continue texts with a model folder, a hub name, "embedded", or the newest (or a given)
    checkpoint of a run.
    """
    parser = ArgumentParser(prog="jalign sample", description=sample.__doc__)
    parser.add_argument("model", help="folder, hub name, run folder, or embedded")
    parser.add_argument("prompts", nargs="*", help="texts to continue")
    parser.add_argument("--step", type=str | None, default=None, help=runs.STEP_HELP)
    parser.add_argument("--file", default=None, help="rows with a prompt column to continue")
    parser.add_argument("--out", default=None, help="jsonl or jsonl.gz to write rows to")
    parser.add_argument(
        "--limit", type=int, default=0, help="first so many prompts of the file; 0: all"
    )
    parser.add_argument("--responses", type=int, default=1, help="continuations per prompt")
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--top_k", type=int | None, default=None)
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--batch_size", type=int, default=32, help="prompts per call")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--best_of",
        "--best-of",
        type=int | None,
        default=None,
        help="sample so many per prompt and show the one with the highest reward; a file gets all "
        "that are not empty, the best first, with their rewards",
    )
    parser.add_argument(
        "--reward",
        default=None,
        help="what gives the rewards: the run of a reward model, or its exported folder",
    )
    options = parser.parse_args(list(args))
    prompts = list(options.prompts)
    if options.file:
        rows = sources.read(options.file)
        prompts += [_prompt(row, i) for i, row in enumerate(rows[: options.limit or None])]
    if options.out:
        check_name(options.out)  # before anything is sampled
    if not prompts:
        raise ValueError("nothing to continue: give a PROMPT or --file")
    best_of.check(options)
    if options.step is not None and not runs.is_run(options.model):
        raise ValueError(f"--step chooses a checkpoint of a run, and {options.model} is none")
    step = runs.which(options.step)
    chosen = options.responses > 1 or options.top_k is not None or options.top_p < 1
    if options.temperature == 0 and chosen:
        raise ValueError("--responses, --top_k and --top_p need a --temperature above 0")
    reward = runs.reward_model(options.reward) if options.reward else None
    decoder, tokenizer, path = _load(options.model, step)
    settings = Settings(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        eos=build.eos_ids(path, tokenizer),
        responses=options.best_of or options.responses,
    )
    texts = generate(
        decoder,
        tokenizer,
        prompts,
        settings,
        jax.random.key(options.seed),
        batch_size=min(options.batch_size, len(prompts)),
    )
    k = settings.responses
    rows = [{"prompt": p, "responses": texts[i * k : (i + 1) * k]} for i, p in enumerate(prompts)]
    if reward:
        rows = best_of.best_first(rows, reward)
    if options.out:
        write(options.out, rows)
        count = sum(len(row["responses"]) for row in rows)
        console.print(f"{count} continuations written to {options.out}", highlight=False)
        return
    for row in rows:
        for text in best_of.shown(row) if reward else row["responses"]:
            # no str: what looks like markup in a text is text
            console.print(Text.assemble((row["prompt"], "dim"), text, "\n"))


def _prompt(row: dict, number: int) -> str:
    prompt = row.get("prompt", row.get("text"))
    if not isinstance(prompt, str):
        raise ValueError(f"row {number} has no text in a column prompt or text: {sorted(row)}")
    return prompt


def _load(name: str, step: runs.Which) -> tuple[Decoder, PreTrainedTokenizerBase, str]:
    if runs.is_run(name):
        _, model, state, _ = runs.newest(name, step)
        return nnx.merge(*build.merged(model, state.params)), model.tokenizer, model.path
    path = build.model_path(name)
    return hub.load(path, dtype=build.compute_dtype("auto")), load_tokenizer(path), path
