"""Step 5: rated lists and judged steps of the embedded model's own making.

    python make_lists.py MODEL PAIRS OUT

The openings are those of the pairs (the folder PAIRS), so that the training and the test split stay
apart for all three. A list is several continuations of an opening, each cut after its last whole
sentence and rated by its sentiment. A stepwise row is one longer continuation, a sentence per step,
labelled true where the sentence does not sound negative; only stories with labels of both kinds are
kept. Lists and steps use different openings.
"""

import argparse
import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from make_pairs import write
from make_stories import whole
from transformers import AutoTokenizer
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from jalign.models import hub
from jalign.rewards.rules import sentiment
from jalign.rollout.sampler import Settings
from jalign.rollout.text import generate

CHUNK = 128  # openings between looks at how many rows there are


def list_row(prompt: str, texts: list[str], min_range: float) -> dict | None:
    """A rated list, if its texts differ and so do their ratings."""
    texts = [" " + whole(text, finished=False) for text in texts]
    ratings = [round(score, 4) for score in sentiment(texts)]
    told_apart = len(set(texts)) == len(texts) and max(ratings) - min(ratings) >= min_range
    if not told_apart or not all(text.strip() for text in texts):
        return None
    return {"prompt": prompt, "responses": texts, "ratings": ratings}


def rated_row(row: dict) -> dict:
    """One response of a list, with its rating and two attributes."""
    at = len(row["prompt"]) % len(row["responses"])  # not the best, not the worst: any
    text = row["responses"][at]
    found = SentimentIntensityAnalyzer().polarity_scores(text)
    attributes = {"positive": found["pos"], "negative": found["neg"]}
    rating = row["ratings"][at]
    return {"prompt": row["prompt"], "completion": text, "rating": rating, "attributes": attributes}


def steps_row(prompt: str, text: str) -> dict | None:
    """The sentences of a story with their labels, if there are both labels.

    A step ends with a line break when it is tokenised; so does the prompt, for steps to be lines.
    """
    steps = re.findall(r'\S[^.!?\n]*[.!?]+"?', whole(text, finished=False))
    labels = [score >= 0 for score in sentiment(steps)]
    if len(set(labels)) < 2:
        return None
    return {"prompt": prompt + "\n", "completions": steps, "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--min_range", type=float, default=0.4)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--max_new_tokens", type=int, default=48, help="of a response of a list")
    parser.add_argument("--story_tokens", type=int, default=96, help="of a story cut into steps")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = hub.load(args.model)
    eos = (tokenizer.eos_token_id,)
    of_list = Settings(args.max_new_tokens, args.temperature, eos=eos, responses=args.responses)
    of_story = Settings(args.story_tokens, args.temperature, eos=eos)

    def rows(
        openings: Iterator[str],
        settings: Settings,
        make: Callable[[str, list[str]], dict | None],
        wanted: int,
        seed: int,
    ) -> list[dict]:
        found, key, at = [], jax.random.key(args.seed + seed), 0
        while len(found) < wanted:
            chunk = [opening for _, opening in zip(range(CHUNK), openings, strict=False)]
            if not chunk:
                raise SystemExit(f"only {len(found)} of {wanted} rows; a smaller --min_range?")
            key_now, k = jax.random.fold_in(key, at), settings.responses
            texts = generate(model, tokenizer, chunk, settings, key_now, args.batch)
            made = [make(p, texts[i * k : (i + 1) * k]) for i, p in enumerate(chunk)]
            found += [row for row in made if row]
            at += len(chunk)
            print(f"{len(found)} rows from {at} openings", flush=True)
        return found[:wanted]

    for number, split in enumerate(("train", "test")):
        with gzip.open(args.pairs / f"pairs_{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            openings = iter([json.loads(line)["prompt"] for line in file])
        wanted = getattr(args, split)
        lists = rows(
            openings, of_list, lambda p, t: list_row(p, t, args.min_range), wanted, 2 * number
        )
        write(args.out / f"lists_{split}.jsonl.gz", lists)
        write(args.out / f"rated_{split}.jsonl.gz", [rated_row(row) for row in lists])
        steps = rows(openings, of_story, lambda p, t: steps_row(p, t[0]), wanted, 2 * number + 1)
        write(args.out / f"stepwise_{split}.jsonl.gz", steps)


if __name__ == "__main__":
    main()
