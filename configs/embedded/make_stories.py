"""Step 1: sample stories from a story model.  python make_stories.py MODEL OUT.jsonl.gz

The file grows batch by batch and can be read while it does. A story that the limit cut off is kept
up to the end of its last whole sentence.
"""

import argparse
import gzip
import json
import re
import time
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from transformers import AutoTokenizer

from jalign.models import hub
from jalign.rollout.sampler import Settings, sample


def whole(text: str, finished: bool) -> str:
    """Without what follows the last full stop, unless the story ended by itself."""
    text = text.strip()
    return text if finished else "".join(re.findall(r'.*[.!?]"?', text, flags=re.DOTALL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="Hugging Face folder of a story model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=7_488)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--temperature", type=float, default=0.9)
    parser.add_argument("--max_new_tokens", type=int, default=192)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    bos = tokenizer.bos_token_id
    model = nnx.split(hub.load(args.model))
    # story models end a story with the beginning-of-text token
    settings = Settings(args.max_new_tokens, args.temperature, eos=(bos, tokenizer.eos_token_id))
    prompts, lengths = np.full((args.batch, 1), bos), np.ones(args.batch, int)
    key, started = jax.random.key(args.seed), time.monotonic()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.unlink(missing_ok=True)
    for i in range(-(-args.count // args.batch)):
        samples = sample(model, prompts, lengths, jax.random.fold_in(key, i), settings)
        tokens, mask, _, finished = map(np.asarray, samples)
        texts = tokenizer.batch_decode(
            [t[m].tolist() for t, m in zip(tokens, mask, strict=True)], skip_special_tokens=True
        )
        with gzip.open(args.out, "at", encoding="utf-8") as file:
            for text, end in zip(texts, finished.tolist(), strict=True):
                if story := whole(text, end):
                    print(json.dumps({"text": story, "finished": end}), file=file)
        per_s = mask.sum() * (i + 1) / (time.monotonic() - started)
        print(f"{(i + 1) * args.batch} stories, about {per_s:.0f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
