"""What each benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class StepBench:
    """An optimizer step: of a config, or of a random tiny Llama on pairs of random tokens.

    Args:
        config: measure the step of this config; its changes come behind --.
        random: with config: random weights of its architecture, random tokens, longest examples;
          a step of an online algorithm samples, too.
        algorithm: of the random model.
        pairs: per step.
        len: tokens of prompt and response.
        prompt: tokens of the prompt.
        lengths: npz with arrays P, C, R: real lengths instead.
        max_len: longest row used from lengths.
        layout: of the batches.
        reference: compute the reference's log-probs in the step, or read cached ones.
        lora: train adapters.
        group_by_length: window, in batches, within which examples are sorted by length; 0: off.
        max_tokens: of a micro-batch.
        steps: measured.
        warmup: steps before them.
        turns: one step per line on stdin, to interleave two processes.
    """

    config: str | None = None
    random: bool = False
    algorithm: str = "dpo"
    pairs: int = 8
    len: int = 256
    prompt: int = 64
    lengths: str | None = None
    max_len: int = 512
    layout: Literal["flat", "padded"] = "flat"
    reference: Literal["step", "cached"] = "step"
    lora: bool = False
    group_by_length: int = 0
    max_tokens: int | None = None
    steps: int = 20
    warmup: int = 3
    turns: bool = False


@dataclass(frozen=True, kw_only=True)
class HeadBench:
    """Log-probabilities of a large vocabulary: the blocked head against the naive one.

    Args:
        tokens: positions that are scored.
        width: of the model.
        vocabulary: tokens in it.
        repeats: calls that are measured.
    """

    tokens: int = 1024
    width: int = 288
    vocabulary: int = 131072
    repeats: int = 5


@dataclass(frozen=True, kw_only=True)
class SampleBench:
    """Tokens per second of the sampler on random weights.

    Args:
        model: name of an architecture; without one, a Llama of 6 layers and width 288.
        rows: responses at once.
        prompt: tokens of each prompt.
        new: most tokens of each response.
        vocabulary: tokens of the model without a name.
        temperature: 0 is greedy.
        mixed: uneven lengths, with and without refilled rows.
        repeats: calls that are measured.
    """

    model: str | None = None
    rows: int = 8
    prompt: int = 32
    new: int = 128
    vocabulary: int = 32000
    temperature: float = 1.0
    mixed: bool = False
    repeats: int = 5


@dataclass(frozen=True, kw_only=True)
class RlBench:
    """A whole online step on a random tiny Llama: sampling, a Python reward, learning.

    Args:
        algorithm: an online one.
        prompts: per step.
        responses: to each prompt.
        prompt: tokens of the prompt.
        new: tokens of a response.
        steps: measured.
        warmup: steps before them.
    """

    algorithm: str = "grpo"
    prompts: int = 8
    responses: int = 4
    prompt: int = 64
    new: int = 64
    steps: int = 12
    warmup: int = 2
