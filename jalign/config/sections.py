"""The sections of a config: model, data, optimizer, mesh, sampling, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import jax
import optax

from jalign.train.optim import (
    MomentsName,
    OptimizerName,
    ScheduleName,
    make_optimizer,
    make_schedule,
)

Sources = str | list[str] | dict[str, float]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters: the base is frozen, only they are trained and saved.

    Args:
        rank: width of the adapters.
        alpha: scale; the update is multiplied by alpha / rank.
        dropout: on the adapters' input, in training only.
        targets: regular expression over module paths such as layers.attn.q.
        rank_stabilised: multiply by alpha / sqrt(rank) instead.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str = r"layers\.(attn\.(q|k|v|o)|mlp\.(gate|up|down))"
    rank_stabilised: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model that is trained.

    Args:
        path: a Hugging Face folder (safetensors) or hub name; "embedded" is the model in the
          package.
        tokenizer: folder or hub name of the tokenizer; the model's own when not given.
        dtype: of the computation; auto is bfloat16 on accelerators, float32 on CPU. What is trained
          is kept in float32.
        remat: what the backward pass computes again to save memory.
        attention: kernel; auto chooses by device and says which.
        lora: train adapters instead of the whole model.
        adapter: a PEFT adapter folder to go on from; it is its own reference.
        quant: keep the matrices under adapters in 4 bits (nf4, as in QLoRA) or 8 (int8).
        reference: another model with the same tokenizer as the frozen reference, such as a teacher;
          a copy of the model itself when not given.
        reference_offload: host keeps the frozen reference of full fine-tuning in the memory of the
          hosts; every micro-batch reads its layers from there, one at a time.
        critic: where the critic of an algorithm that trains one starts; the model's own path when
          not given. "shared": none of its own, but a scalar head on the policy. With adapters, a
          critic that starts where the policy does stands on the same frozen weights.
        heads: numbers that the scalar head of a reward model gives: the attributes of
          multi_attribute.
        depth: keep only the first so many layers of what is loaded, as a student to distil into; 0
          is all of them.
    """

    path: str = "embedded"
    tokenizer: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    remat: Literal["none", "dots", "full"] = "none"
    attention: Literal["auto", "xla", "blocked", "cudnn", "splash"] = "auto"
    lora: LoraConfig | None = None
    adapter: str | None = None
    quant: Literal["none", "nf4", "int8"] = "none"
    reference: str | None = None
    reference_offload: Literal["none", "host"] = "none"
    critic: str | None = None
    heads: int = 1
    depth: int = 0


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
        train_on: score the responses only, or every token (supervised data).
        turns: which assistant turns of a conversation are scored.
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
    train_on: Literal["response", "all"] = "response"
    turns: Literal["last", "all"] = "last"
    template: str | None = None
    date: str | None = None
    layout: Literal["flat", "padded"] = "flat"
    max_tokens: int | None = None
    group_by_length: int = 0
    soft_labels: float = 0.0
    shuffle: bool = True


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer (optax).

    Args:
        name: which one.
        learning_rate: at its peak; null is what is usual for adamw and the kind of run: 2e-5 for
          demonstrations (SFT), 1e-5 for reward models, 1e-6 for preferences and online; ten times
          as much for adapters (jalign.config.rates).
        schedule: what follows the warm-up.
        warmup_steps: optimizer steps of linear warm-up.
        final: the rate at the end, as a fraction of learning_rate.
        b1: first decay of adamw, lion; momentum of muon.
        b2: second decay of adamw, lion.
        eps: of adamw.
        weight_decay: on matrices, not on norms and biases.
        momentum: of sgd.
        clip_norm: largest global gradient norm; null for no clipping.
        l1: makes what is trained sparse: after each step every entry's change since the start (of
          adapters, the entry itself) moves learning rate x l1 towards 0; 0 is off.
        moments: int8 keeps the moments of adamw, lion, muon and sgd with momentum in 8 bits (block-
          wise dynamic quantisation, arXiv 2110.02861): about 2 bytes per parameter of adamw's
          instead of 8. Arrays of less than 4096 entries stay float32.
        offload: host keeps the optimizer's state in the memory of the hosts; every step moves it to
          the devices and back. Nothing else changes, so a run may go on with another choice. With
          moments: int8 only from JAX 0.12.
    """

    name: OptimizerName = "adamw"
    learning_rate: float | None = None
    schedule: ScheduleName = "cosine"
    warmup_steps: int = 0
    final: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    clip_norm: float | None = 1.0
    l1: float = 0.0
    moments: MomentsName = "float32"
    offload: Literal["none", "host"] = "none"

    def make(self, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
        """The optimizer and schedule of a run of so many steps; ValueError says what is off."""
        if self.offload == "host" and self.moments == "int8" and jax.__version_info__ < (0, 12):
            raise ValueError(
                "offload: host with moments: int8 needs JAX 0.12: TPU compilers before it hold no "
                f"8-bit arrays in the host's memory, and this is {jax.__version__}"
            )
        if self.offload == "host" and self.name == "sgd" and not self.momentum:
            raise ValueError(
                "offload: host does not apply to sgd without momentum: it has no state"
            )
        if self.learning_rate is None:
            raise ValueError("optim.learning_rate: only a run with an algorithm has a usual one")
        schedule = make_schedule(
            self.schedule,
            self.learning_rate,
            steps=steps,
            warmup_steps=self.warmup_steps,
            final=self.final,
        )
        optimizer = make_optimizer(
            self.name,
            schedule,
            b1=self.b1,
            b2=self.b2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            clip_norm=self.clip_norm,
            l1=self.l1,
            moments=self.moments,
        )
        return optimizer, schedule


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices = data x fsdp x context x tensor; one of them may be -1: what is left.

    Args:
        data: copies of the model, each on its share of the batch.
        fsdp: parts that parameters and batch are split into.
        tensor: parts that each matrix is split into.
        context: parts that the tokens of a stream are split into, for rows too long for one device;
            attention exchanges tokens for heads.
        rules: regular expression over parameter paths -> mesh axis (or null) of each dimension,
            instead of the default: {'.*mlp.*kernel': [null, fsdp, tensor], '.*': []}.
    """

    data: int = 1
    fsdp: int = -1
    tensor: int = 1
    context: int = 1
    rules: dict[str, list[str | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Continuations written before, during and after training.

    Args:
        prompts: how many held-out prompts; 0 for none.
        every: optimizer steps between them; 0 for before and after only.
        max_new_tokens: most tokens of a continuation.
        temperature: 0 is greedy.
        sentiment: report the mean VADER sentiment of the continuations.
    """

    prompts: int = 0
    every: int = 0
    max_new_tokens: int = 64
    temperature: float = 0.0
    sentiment: bool = False


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved, and how a run goes on.

    Args:
        every: optimizer steps between checkpoints; 0 for the last step only.
        keep: newest checkpoints that are kept.
        resume: auto goes on if there is a checkpoint; never refuses to; must insists; a number
          names a step.
        allow_mismatch: facts that may differ from the checkpoint's (its names are in the error).
    """

    every: int = 100
    keep: int = 2
    resume: Literal["auto", "never", "must"] | int = "auto"
    allow_mismatch: list[str] = field(default_factory=list)
