"""A language model with its tokenizer: generate, score, train, save."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree
from transformers import PreTrainedTokenizerBase

from jalign import embedded
from jalign.data.chat import ends_of, load_tokenizer
from jalign.data.templates import template_source
from jalign.models import hub
from jalign.models.adapters import peft
from jalign.models.adapters.lora import trainable_filter
from jalign.models.decoder import Decoder
from jalign.models.functional import functional
from jalign.models.own import Hidden, OwnDecoder, Unembedding
from jalign.options import MeshConfig, ModelConfig, RunOptions
from jalign.parallel.rules import place
from jalign.run.decoders import FrozenBase
from jalign.run.devices import mesh_of
from jalign.train.objective import Apply

if TYPE_CHECKING:
    from jalign.core import Algorithm
    from jalign.data.records import Message
    from jalign.rewards.model import Prompt


@dataclass
class Policy:
    """A language model with its tokenizer; `jalign.load` and `Run.policy` return one.

    Attributes:
      decoder: the flax module, adapters included.
      tokenizer: with the chat template used in training and generation.
      path: folder or hub name of the initial weights.
      mesh: the device mesh of its arrays.
      model: options it was loaded with.
      mesh_options: axes and sharding rules of the mesh.
      shared_base: the frozen weights under the adapters, which other roles share.
      algorithm: the row that trained it; None if it is untrained.
      facts: facts for the model card.
    """

    decoder: Decoder
    tokenizer: PreTrainedTokenizerBase
    path: str
    mesh: Mesh
    model: ModelConfig = field(default_factory=ModelConfig)
    mesh_options: MeshConfig = field(default_factory=MeshConfig)
    shared_base: FrozenBase | None = None
    algorithm: Algorithm | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def eos(self) -> tuple[int, ...]:
        """Ids of the tokens that end a response."""
        return eos_ids(self.path, self.tokenizer)

    @classmethod
    def of_module(
        cls,
        module: nnx.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        hidden: Hidden,
        unembedding: Unembedding,
        vocab_size: int,
        width: int,
        depth: int = 1,
        mesh: MeshConfig | None = None,
    ) -> Policy:
        """Wrap a flax nnx module of your own; see `jalign.models.own.OwnDecoder`.

        The policy can be trained, evaluated, scored and sampled from like any other. LoRA,
        quantization and `save` need to know its layers and raise an error.
        """
        axes = mesh or MeshConfig()
        devices = mesh_of(axes)
        decoder = OwnDecoder(
            module, hidden=hidden, unembedding=unembedding, vocab_size=vocab_size, width=width,
            depth=depth,
        )  # fmt: skip
        place(decoder, devices)
        options = ModelConfig(path=OWN)
        facts = {"base_model": type(module).__name__}
        return cls(decoder, tokenizer, OWN, devices, options, axes, facts=facts)  # type: ignore[arg-type]

    @property
    def weights(self) -> tuple[nnx.GraphDef[Decoder], nnx.State]:
        """(graphdef, state) for the sampler."""
        return nnx.split(self.decoder)

    def generate(
        self,
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
        """Sample continuations.

        Args:
          prompts: texts or message lists.
          temperature: 0 is greedy.
          responses: number per prompt; those of one prompt are adjacent in the result.
          chat: whether texts become user messages in the chat template; None: if the tokenizer has
            a template.

        Raises:
          ValueError: `chat` without a template, or several responses at temperature 0.
        """
        from jalign.run.generate import generate  # which imports Policy

        return generate(
            self,
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            responses=responses,
            top_k=top_k,
            top_p=top_p,
            chat=chat,
            batch_size=batch_size,
            seed=seed,
        )

    def reward(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """[n] float32 rewards of responses by a reward model that was loaded as it is; of one that
        a run trained, `Run.reward`.

        Raises:
          ValueError: a language model, which has no scalar head, or several outputs.
        """
        from jalign.rewards.model import RewardModel, reading_of  # slow to import

        options = {} if self.path == OWN else reading_of(hub.find(self.path))
        with jax.set_mesh(self.mesh):
            return RewardModel(self.decoder, self.tokenizer, **options)(prompts, responses)

    def functional(self) -> tuple[Apply, PyTree, PyTree]:
        """(apply, params, base) for `jalign.train.step.make_train_step`: the model as a pure
        function, its trainable parameters (adapters, or all), and its frozen weights.
        """
        return functional(self.decoder, trainable_filter(self.decoder))

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        adapter: bool = False,
        dtype: str = "base",
        overwrite: bool = False,
    ) -> None:
        """Write a Hugging Face folder that transformers can load, with adapters merged.

        Args:
          adapter: write only the adapters, in PEFT's format.
          dtype: of the weights: float32, bfloat16, float16, or "base" for that of the base model.
          overwrite: replace an existing model in the folder.
        """
        from jalign.run.export.exported import save  # which imports Policy

        if self.path == OWN:
            raise ValueError("a module of your own has no Hugging Face format: save its nnx.state")
        save(self, Path(folder), adapter=adapter, dtype=dtype, overwrite=overwrite)


OWN = "a module from Python"
"""model.path of a run whose policy is a user's module."""


def model_path(name: str) -> str:
    """Resolve a model name to a folder or hub name; a run (RUN, RUN@STEP, RUN@best) is exported
    to a folder on first use.
    """
    from jalign.run import run_model  # which imports this module

    name = os.path.expanduser(name)
    if name == "embedded":
        return str(embedded.path())
    if run := run_model.named(name):
        return run_model.folder_of(*run)
    folder = Path(name)
    if (folder / peft.CONFIG).is_file() and not (folder / "config.json").is_file():
        raise ValueError(
            f"{name} is an adapter: name its base as the model, {peft.base_of(folder)}, and the "
            "adapter as model.adapter"
        )
    return name


def tokenizer_of(options: RunOptions) -> PreTrainedTokenizerBase:
    """The tokenizer of a run, with the run's chat template set."""
    tokenizer = load_tokenizer(model_path(options.model.tokenizer or options.model.path))
    if options.data.template:
        tokenizer.chat_template = template_source(tokenizer, options.data.template)
    return tokenizer


def eos_ids(path: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that end a sampled response: the tokenizer's EOS, the end of turn of its chat template,
    and the EOS tokens of the model's generation config (or of its config).
    """
    if path == OWN:
        return tuple(sorted(ends_of(tokenizer)))
    ids, folder = set(ends_of(tokenizer)), hub.find(path)
    # the generation config first: it knows the end of turn where config.json has the EOS alone
    files = (folder / name for name in ("generation_config.json", "config.json"))
    if file := next((file for file in files if file.is_file()), None):
        more = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        ids |= set(more if isinstance(more, list) else [] if more is None else [more])
    return tuple(sorted(ids))
