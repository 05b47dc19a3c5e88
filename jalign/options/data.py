"""The data that a run is trained and evaluated on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Sources = str | list[str] | dict[str, float]

EMBEDDED = {
    "embedded": "pairs",
    "embedded-lists": "lists",
    "embedded-rated": "rated",
    "embedded-steps": "steps",
}
"""Names of the data in the package -> the function of `jalign.embedded` that returns them."""


def is_embedded(source: Sources) -> bool:
    """Whether the training data ship with the package, with held-out data of their own."""
    return isinstance(source, str) and source in EMBEDDED


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Training and held-out data, and how they become tokens.

    Args:
        train: a file, folder or hub name; or several; or {source: weight}. "embedded" is the pairs
          in the package, "embedded-lists" and "embedded-steps" its rated lists and judged steps.
        split: the split to train on, where a folder or hub name has several: train_prefs. `train`
          also matches a single split whose name starts with it.
        eval: held-out data; when not given, the test (else validation) split of train where it has
          one, else `holdout` is taken from train.
        eval_split: the split of eval, where a folder or hub name has several.
        holdout: a fraction (below 1) or a number of training examples kept for evaluation, selected
          by a hash of the prompt; 0 for none; 0.05 unless given or other held-out data exist.
        bad_rows: "drop" skips rows that cannot be read, and counts them by reason; "error" stops at
          the first, naming its file and row.
        pretraining: texts for the pretraining loss of an online run (ptx_coef): batch_size of them
          with each step, at most max_response_len tokens of each.
        columns: our name of a column -> its name in the data, where it is not recognized:
          {completion: solution}.
        limit: use only the first rows, at most this many; 0 for all.
        eval_limit: the same for held-out data.
        filters: training rows to drop: min_margin=0.5 (pairs), length_ratio=3 (pairs, lists; in
          characters), no_conflicts (pairs, binary), no_duplicates; in this order.
        balance: drop training rows of the more frequent label until both are equally frequent
          (binary data).
        max_prompt_len: tokens; longer prompts are truncated at the front.
        max_response_len: tokens, EOS included.
        over_long: what to do with longer examples.
        keep_eos: end a truncated response with an EOS; false: it ends where it was cut, so that the
          model does not learn to stop there.
        loss_on: tokens in the loss: those of the responses, or all (supervised data).
        loss_turns: assistant turns of a conversation in the loss.
        template: a chat template instead of the tokenizer's own: a built-in one by name, a file
          that ends in .jinja, or the Jinja text. Exported models have it.
        date: the date that a chat template writes, such as 2026-11-30 or 2026-11-30T18:05; null is
          the start of the run, which its config.json keeps.
        layout: one flat token stream with shared prompts, or padded rows.
        max_tokens: most tokens of a micro-batch on one device; null is 2048 on CPU (fits its
          caches), 8192 elsewhere, or the length of the longest example.
        group_by_length: window, in batches, within which examples are sorted by length (0: off).
        soft_labels: above 0, pairs with a margin get chosen_prob = sigmoid(soft_labels * margin).
        flip: training labels to invert, to test with: uniform (at random), annotator (all labels of
          some annotators; of 20 where the data have none), tail (the pairs of largest margin).
        flip_share: of the labels, in [0, 1).
        shuffle: a new order in every epoch; false keeps that of the data (easy to hard).
    """

    train: Sources = "embedded"
    split: str = "train"
    eval: Sources | None = None
    eval_split: str = "test"
    # None is not 0: without held-out data of their own 0.05 of the prompts are kept
    holdout: float | None = None
    bad_rows: Literal["error", "drop"] = "error"
    pretraining: Sources | None = None
    columns: dict[str, str] = field(default_factory=dict)
    limit: int = 0
    eval_limit: int = 0
    filters: list[str] = field(default_factory=list)
    balance: bool = False
    max_prompt_len: int = 512
    max_response_len: int = 512
    over_long: Literal["truncate", "drop", "error"] = "truncate"
    keep_eos: bool = False
    loss_on: Literal["response", "all"] = "response"
    loss_turns: Literal["last", "all"] = "last"
    template: str | None = None
    # None becomes the date of the first start: a resumed run must build the same prompts
    date: str | None = None
    layout: Literal["flat", "padded"] = "flat"
    # None until the device is known, which a config does not name
    max_tokens: int | None = None
    group_by_length: int = 0
    soft_labels: float = 0.0
    flip: Literal["none", "uniform", "annotator", "tail"] = "none"
    flip_share: float = 0.2
    shuffle: bool = True
