"""Step 4: pairs of the embedded model's own making.  python make_pairs.py MODEL STORIES OUT

Several continuations of every opening, cut after their last whole sentence, are scored by
sentiment; the best and the worst become a pair when they differ enough. `pairs_train.jsonl.gz` and
`pairs_test.jsonl.gz` share no opening.
"""

import argparse
import gzip
import json
import re
from pathlib import Path

import jax
from make_stories import whole
from transformers import AutoTokenizer

from jalign.models import hub
from jalign.rewards.rules import sentiment
from jalign.rollout.sampler import Settings
from jalign.rollout.text import generate


def opening(story: str) -> str | None:
    """The first two sentences, if they are not long and nobody speaks in them."""
    found = re.match(r"([^.!?\n\"]+[.!?] ){2}", story)
    return found[0].strip() if found and len(found[0]) <= 121 else None


def write(file: Path, rows: list[dict]) -> None:
    # no time stamp, so that the same rows give the same bytes
    with gzip.GzipFile(file, "wb", mtime=0) as out:
        out.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    print(f"{len(rows)} rows, {file.stat().st_size / 1024:.0f} KiB -> {file}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("stories", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=2400)
    parser.add_argument("--test", type=int, default=250)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--min_margin", type=float, default=0.4)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--max_new_tokens", type=int, default=56)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    with gzip.open(args.stories, "rt", encoding="utf-8") as file:
        stories = [json.loads(line)["text"] for line in file]
    openings = list(dict.fromkeys(filter(None, map(opening, stories))))
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = hub.load(args.model)
    settings = Settings(
        args.max_new_tokens,
        args.temperature,
        eos=(tokenizer.eos_token_id,),
        responses=args.responses,
    )
    rows, wanted, at = [], args.train + args.test, 0
    while len(rows) < wanted and at < len(openings):
        prompts = openings[at : at + 16 * args.batch]
        key = jax.random.fold_in(jax.random.key(args.seed), at)
        texts = generate(model, tokenizer, prompts, settings, key, args.batch)
        texts = [" " + whole(text, finished=False) for text in texts]
        scores = sentiment(texts)
        for i, prompt in enumerate(prompts):
            ranked = sorted(
                range(i * args.responses, (i + 1) * args.responses), key=scores.__getitem__
            )
            worst, best = ranked[0], ranked[-1]
            margin = round(scores[best] - scores[worst], 4)
            if margin >= args.min_margin and texts[worst].strip() and texts[best].strip():
                row = {"prompt": prompt, "chosen": texts[best], "rejected": texts[worst]}
                rows.append(row | {"margin": margin})
        at += len(prompts)
        print(f"{len(rows)} pairs from {at} openings", flush=True)
    if len(rows) < wanted:
        raise SystemExit(
            f"only {len(rows)} of {wanted} pairs; more stories or a smaller --min_margin"
        )
    write(args.out / "pairs_test.jsonl.gz", rows[: args.test])
    write(args.out / "pairs_train.jsonl.gz", rows[args.test : wanted])


if __name__ == "__main__":
    main()
