"""Tiny random models of every family, written by transformers: config, weights, tokens, logits,
hidden states, logits in bfloat16 and greedy tokens.

Run with torch and transformers 5 installed:

    python tests/golden/models/make_fixtures.py [NAME ... | table]

writes the models of these names, or all, or none, and the parity table in jalign/models/README.md.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
README = TESTS.parent / "jalign" / "models" / "README.md"
TABLE = "table"
HEAD = "| model | float32 | bfloat16 | transformers in bfloat16 | greedy tokens equal |"
TOKENS = 20  # more than any window below
NEW = 128  # greedy tokens

COMMON = {
    "vocab_size": 80,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
GEMMA3_ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
}
OLMO3_ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
    "full_attention": {
        "rope_type": "yarn",
        "rope_theta": 500.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}
MINISTRAL3_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 8,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.5,
}
PHI4_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 1000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.2, 1.5],
    "long_factor": [1.5, 3.0, 7.0],
    "original_max_position_embeddings": 16,
}
GRANITE = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.4,
    "logits_scaling": 0.25,
}
WINDOWS = {
    "sliding_window": 8,
    "num_hidden_layers": 4,
    "layer_types": [
        "sliding_attention",
        "sliding_attention",
        "sliding_attention",
        "full_attention",
    ],
}
# Two periods of three layers, which end with one of full attention.
HYBRID = ["linear_attention", "linear_attention", "full_attention"] * 2
GPT2 = {
    "vocab_size": 80,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_inner": 24,
    "n_positions": 160,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SOFTCAPS = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}

# name -> (class of the config, what differs from COMMON)
MODELS = {
    "llama": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "llama3": (
        "LlamaConfig",
        {"rope_parameters": LLAMA3, "tie_word_embeddings": True, "head_dim": 12},
    ),
    "mistral": ("MistralConfig", {"sliding_window": 8}),
    "gemma": (
        "GemmaConfig",
        {"head_dim": 10, "num_key_value_heads": 1, "tie_word_embeddings": True},
    ),
    "gemma2": (
        "Gemma2Config",
        SOFTCAPS
        | {
            "head_dim": 10,
            "query_pre_attn_scalar": 7,
            "sliding_window": 8,
            "tie_word_embeddings": True,
        },
    ),
    "gemma3_text": (
        "Gemma3TextConfig",
        {
            "head_dim": 10,
            "query_pre_attn_scalar": 7,
            "sliding_window": 8,
            "num_hidden_layers": 7,
            "rope_parameters": GEMMA3_ROPES,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 12, "tie_word_embeddings": True}),
    "phi3": ("Phi3Config", {"sliding_window": 8, "rope_parameters": {
        "rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5}}),
    "phi4": ("Phi3Config", {"rope_parameters": PHI4_ROPE, "tie_word_embeddings": True,
        "original_max_position_embeddings": 16}),
    "gpt2": ("GPT2Config", {}),
    "qwen3_5": ("Qwen3_5TextConfig", {"num_hidden_layers": 6, "head_dim": 12, "layer_types": HYBRID,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6,
        "linear_value_head_dim": 10, "linear_conv_kernel_dim": 3}),
    "smollm3": ("SmolLM3Config", {"num_hidden_layers": 5, "tie_word_embeddings": True}),
    "olmo2": ("Olmo2Config", {}),
    "olmo3": ("Olmo3Config", WINDOWS | {"rope_parameters": OLMO3_ROPES}),
    "granite": ("GraniteConfig", GRANITE | {"tie_word_embeddings": True}),
    "cohere2": ("Cohere2Config", WINDOWS | {"tie_word_embeddings": True, "logit_scale": 0.5,
        "layer_norm_eps": 1e-5}),
    "ministral": ("MinistralConfig", WINDOWS | {"head_dim": 12}),
    "ministral3": ("Ministral3Config", {"rope_parameters": MINISTRAL3_ROPE, "head_dim": 12}),
    "glm": ("GlmConfig", {"head_dim": 12, "num_key_value_heads": 1}),
    "glm4": ("Glm4Config", {"head_dim": 12}),
    "qwen3_moe": ("Qwen3MoeConfig", {"head_dim": 12, "num_experts": 6, "num_experts_per_tok": 3,
        "moe_intermediate_size": 12, "norm_topk_prob": True}),
    "qwen2_moe": ("Qwen2MoeConfig", {"num_experts": 6, "num_experts_per_tok": 3,
        "moe_intermediate_size": 12, "shared_expert_intermediate_size": 14,
        "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2,
        "intermediate_size": 12, "sliding_window": 8}),
    "olmoe": ("OlmoeConfig", {"num_experts": 6, "num_experts_per_tok": 3, "intermediate_size": 12}),
    "gpt_oss": ("GptOssConfig", {"head_dim": 10, "num_local_experts": 4, "num_experts_per_tok": 2,
        "intermediate_size": 12, "sliding_window": 8, "swiglu_limit": 0.6, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "truncate": False,
        "original_max_position_embeddings": 16}}),
}  # fmt: skip


def build(name: str, seed: int = 0):
    """A torch model whose every parameter is random, norms and biases too."""
    import torch
    import transformers

    kind, changes = MODELS[name]
    config = getattr(transformers, kind)(**((GPT2 if name == "gpt2" else COMMON) | changes))
    config._attn_implementation = config._experts_implementation = "eager"
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for path, p in model.named_parameters():
            less_one = "gemma" in name or (name == "qwen3_5" and "linear_attn" not in path)
            centre = 1.0 if ("norm" in path and not less_one) or "ln_" in path else 0.0
            centre = 0.0 if path.endswith("bias") else centre
            p.copy_(centre + (0.25 if p.ndim < 2 else 0.15) * torch.randn_like(p))
    return model


def tokens_for(vocab_size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(3, vocab_size, (2, TOKENS), dtype=np.int32)


def outputs(model, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Float32 logits, the hidden states before every layer, and after the final norm."""
    import torch

    with torch.no_grad():
        out = model(torch.from_numpy(tokens).long(), output_hidden_states=True)
    hidden = np.stack([h.float().numpy() for h in out.hidden_states])
    return {"tokens": tokens, "logits": out.logits.float().numpy(), "hidden": hidden}


def more_outputs(model, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """The tokens that greedy decoding appends to each row, and the logits in bfloat16.

    The model is in bfloat16 afterwards.
    """
    import torch

    ids = torch.from_numpy(tokens).long()
    with torch.no_grad():
        new = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            eos_token_id=None,
            pad_token_id=0,
        )
        logits = model.to(torch.bfloat16)(ids).logits.float().numpy()
    return {"greedy": new[:, tokens.shape[1] :].numpy().astype(np.int32), "bfloat16": logits}


def main() -> None:
    for name in [x for x in sys.argv[1:] or MODELS if x != TABLE]:
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        model = build(name)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        config = json.loads((folder / "config.json").read_text())
        config.pop("transformers_version", None)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        tokens = tokens_for(80)
        arrays = outputs(model, tokens) | more_outputs(model, tokens)
        np.savez_compressed(folder / "outputs.npz", **arrays)
    write_table()


def write_table() -> None:
    """Write what `parity` finds into the README, in the place of the table that is there."""
    sys.path.insert(0, str(TESTS / "models"))
    from fixtures_of_models import NAMES, parity

    lines = [HEAD, "|---|---|---|---|---|"]
    for name in NAMES:
        x = parity(name)
        errors = f"{x.float32:.1e} | {x.bfloat16:.4f} | {x.theirs:.4f}"
        lines.append(f"| `{name}` | {errors} | {x.greedy} of {x.new} |")
    before, _, after = README.read_text().partition(HEAD)
    rest = after.lstrip("\n").split("\n\n", 1)[1:]
    README.write_text(before + "\n\n".join(["\n".join(lines), *rest]))


if __name__ == "__main__":
    main()
