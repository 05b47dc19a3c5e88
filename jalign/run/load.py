"""`jalign.load`: a policy from a folder, the hub, or a run."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import jax

from jalign import algorithms
from jalign.models import hub
from jalign.options import DataConfig, LoraConfig, MeshConfig, ModelConfig, RunOptions
from jalign.rewards.model import labels_of
from jalign.run.arguments import check_names
from jalign.run.decoders import Source, trained_decoder
from jalign.run.devices import mesh_of
from jalign.run.policy import Policy, model_path, tokenizer_of


def load(
    name: str,
    *,
    lora: int | LoraConfig | None = None,
    adapter: str | None = None,
    quant: str = "none",
    dtype: str = "auto",
    tokenizer: str | None = None,
    template: str | None = None,
    mesh: MeshConfig | None = None,
    seed: int = 0,
    **model: Any,
) -> Policy:
    """Load a language model to train, sample from or score with.

    A sequence-classification model is loaded with its scalar head and no unembedding: `reward` of
    the policy reads it, and `jalign.reward_model` trains it further.

    Args:
      name: a folder or hub name of Hugging Face, "embedded", or a run (RUN, RUN@STEP, RUN@best).
      lora: rank of new adapters (alpha = 2 rank), or their `LoraConfig`; the base is frozen.
      adapter: a PEFT folder with adapters to continue training.
      quant: nf4 or int8 stores the matrices under adapters in 4 or 8 bits; w8a8 and fp8 also
        multiply in 8 bits.
      dtype: compute dtype; auto is bfloat16 on accelerators, float32 on CPU.
      tokenizer: folder or hub name; by default the model's own.
      template: replaces the tokenizer's chat template: a built-in name, a .jinja file, or a text.
      mesh: axes of the device mesh; by default all devices are one fsdp axis.
      seed: for the initialization of new adapters.
      model: further fields of `jalign.options.ModelConfig`, such as remat or attention.

    Raises:
      ValueError: unknown model, or an invalid value of an option.
    """
    # roles beside the policy and heads belong to a run: they are arguments of online and offline
    known = {f.name for f in fields(ModelConfig)} - {"reference", "critic", "heads"}
    check_names("load", model, known)
    if isinstance(lora, int):
        lora = LoraConfig(rank=lora, alpha=2.0 * lora) if lora else None
    c = ModelConfig(
        path=name,
        lora=lora,
        adapter=adapter,
        quant=quant,  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
        tokenizer=tokenizer,
        **model,
    )
    options = RunOptions(
        # a row without reference and value head: the run's own row is not known yet
        algorithm=algorithms.get("sft"),
        model=c,
        mesh=mesh or MeshConfig(),
        data=DataConfig(template=template),
        seed=seed,
    )
    devices = mesh_of(options.mesh)
    text = tokenizer_of(options)
    path = model_path(name)
    with jax.set_mesh(devices):
        source, heads = Source(devices), labels_of(hub.find(path))
        decoder, base = trained_decoder(options, source, path, heads=heads, seed=0, lm_head=True)
    facts = {"base_model": name}
    return Policy(decoder, text, path, devices, c, options.mesh, base, facts=facts)
