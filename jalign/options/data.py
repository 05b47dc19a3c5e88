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
"""Names of the data in the package -> the function of `jalign.embedded` that finds them."""


def is_embedded(source: Sources) -> bool:
    """Whether the training data are in the package, and so have held-out data of their own."""
    return isinstance(source, str) and source in EMBEDDED


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the model is trained on.

    Args:
        train: a file, folder or hub name; or several; or {source: weight}. "embedded" is the pairs
          in the package, "embedded-lists" and "embedded-steps" its rated lists and judged steps.
        split: which split to train on, where a folder or hub name has several: train_prefs. `train`
          is also the only one that begins so.
        eval: held-out data; when not given, the test (else validation) split of train where it has
          one, else `holdout` is taken from train.
        eval_split: which split of them, where a folder or hub name has several.
        holdout: a fraction (below 1) or a number of examples of train kept for evaluation, chosen
            by a hash of the prompt; 0 for none; 0.05 when nothing is said and there is no other
            held-out data.
        bad_rows: "drop" leaves out rows that cannot be read, and counts them by reason; "error"
          ends with the first, naming its file and row.
        pretraining: texts whose likelihood an online run keeps up (ptx_coef), batch_size of them
          with each step, at most max_response_len tokens of each.
        columns: our name of a column -> the data's, where it is not recognised: {completion:
          solution}.
        limit: use only the first so many rows; 0 for all.
        eval_limit: the same for held-out data.
        filters: training rows to leave out: min_margin=0.5 (pairs), length_ratio=3 (pairs, lists;
            in characters), no_conflicts (pairs, binary), no_duplicates; in this order.
        balance: leave out as many training rows as makes both labels equally many (binary data).
        max_prompt_len: tokens; longer prompts lose their front.
        max_response_len: tokens, EOS included.
        over_long: what happens to what is longer.
        keep_eos: a response that is cut ends with an EOS all the same; false: it ends where it was
          cut, so that the model learns no end there.
        loss_on: score the responses only, or every token (supervised data).
        loss_turns: which assistant turns of a conversation are scored.
        template: a chat template instead of the tokenizer's own: a built-in one by name, a file
          that ends in .jinja, or the Jinja text. What is exported has it.
        date: what a chat template that writes the date takes for now, such as 2026-11-30 or
          2026-11-30T18:05; null is when the run began, which its config.json keeps.
        layout: one flat token stream with shared prompts, or padded rows.
        max_tokens: most tokens of a micro-batch on one device; null is 2048 on CPU (that stays
            in its caches), 8192 elsewhere, or as long as the longest example needs.
        group_by_length: sort within windows of so many batches, to waste less; 0 is off.
        soft_labels: above 0, pairs with a margin get chosen_prob = sigmoid(soft_labels * margin).
        shuffle: a new order in every epoch; false keeps that of the data (easy to hard).
    """

    train: Sources = "embedded"
    split: str = "train"
    eval: Sources | None = None
    eval_split: str = "test"
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
    date: str | None = None
    layout: Literal["flat", "padded"] = "flat"
    max_tokens: int | None = None
    group_by_length: int = 0
    soft_labels: float = 0.0
    shuffle: bool = True
