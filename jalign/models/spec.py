"""The sizes and switches that make one decoder a Llama, a Gemma or a GPT-2."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from jalign.core import did_you_mean
from jalign.models.delta.spec import DeltaNet
from jalign.models.experts.spec import Experts
from jalign.models.fields import LATER, StableRepr
from jalign.models.rope import Rope

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")
PLAIN = Rope()
NORMS = ("rms", "rms_plus_one", "layer", "layer_no_bias")
QK_NORMS = ("head", "width")


class LayerType(NamedTuple):
    """What differs between layers: the attention window (None: everything before), the rotary
    embedding, and whether a gated delta net stands in the place of attention.
    """

    window: int | None
    rope: Rope | None
    delta: bool = False


DELTA = LayerType(None, None, True)


@dataclass(frozen=True, repr=False)
class Spec(StableRepr):
    """An architecture.

    Attributes:
      vocab_size, width, depth, heads, kv_heads, head_dim, mlp_width: V, D, L, H, G, C and the
        width inside the MLP.
      activation: silu | gelu | gelu_tanh | relu.
      gated: the MLP is down(act(gate x) * up x); otherwise down(act(up x)).
      norm: rms | rms_plus_one (Gemma: the weight is stored minus 1) | layer (mean removed, with
        bias) | layer_no_bias (Cohere).
      norm_eps: added to the mean square.
      pre_norms: the inputs of attention and MLP are normalized (not in OLMo 2 and 3).
      post_norms: attention and MLP outputs are normalized, before they are added (Gemma 2 and 3,
        OLMo 2 and 3, GLM-4).
      parallel: attention and MLP read the same normalized input, and both outputs are added to it
        at once (Cohere); otherwise the MLP reads the sum of the input and attention.
      residual_scale: factor of the outputs of attention and MLP (Granite).
      qk_norm: queries and keys are normalized (Qwen 3, Gemma 3).
      qk_norm_over: head: each head alone; width: all heads together (OLMo 2 and 3).
      attn_gate: the output of attention is multiplied by the sigmoid of a further projection
        (Qwen 3.5), whose columns follow those of each head's queries.
      delta: sizes of the gated delta nets that some layers have in the place of attention, or None.
      delta_layers: for each layer whether it has one (Qwen 3.5).
      qkv_bias, o_bias, mlp_bias: which linear layers have one.
      embed_scale: factor of the token embeddings (Gemma: sqrt(D)), rounded to the compute dtype as
        in training.
      context: tokens of a row that a model with rotary positions was trained for, scaling included;
        None if the config does not give it. Only used for warnings.
      learned_positions: size of a learned position table that is added to the embeddings (GPT-2),
        or None.
      rope: rotary embedding, or None.
      local_rope: that of windowed layers when it differs (Gemma 3).
      window: tokens a windowed layer sees, itself included.
      windowed: for each layer whether `window` applies; empty means to all.
      no_rope: for each layer whether it has no rotary embedding (SmolLM3, Cohere 2); empty means
        that all have one.
      attn_scale: factor of the attention logits; None is C ** -0.5.
      attn_softcap, logit_softcap: z becomes cap * tanh(z / cap), for attention and for the
        vocabulary.
      attn_sinks: a logit per head joins the softmax of attention (GPT-OSS).
      logit_scale: factor of the vocabulary logits.
      tied: the unembedding is the embedding.
      experts: the mixture in the place of every layer's MLP, or None.
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    activation: str = "silu"
    gated: bool = True
    norm: str = "rms"
    norm_eps: float = 1e-6
    post_norms: bool = False
    qk_norm: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    embed_scale: float | None = None
    learned_positions: int | None = None
    rope: Rope | None = PLAIN
    local_rope: Rope | None = None
    window: int | None = None
    windowed: tuple[bool, ...] = ()
    attn_scale: float | None = None
    attn_softcap: float | None = None
    logit_softcap: float | None = None
    logit_scale: float = 1.0
    tied: bool = True
    pre_norms: bool = field(default=True, metadata=LATER)
    parallel: bool = field(default=False, metadata=LATER)
    residual_scale: float = field(default=1.0, metadata=LATER)
    qk_norm_over: str = field(default="head", metadata=LATER)
    no_rope: tuple[bool, ...] = field(default=(), metadata=LATER)
    attn_gate: bool = field(default=False, metadata=LATER)
    delta: DeltaNet | None = field(default=None, metadata=LATER)
    delta_layers: tuple[bool, ...] = field(default=(), metadata=LATER)
    attn_sinks: bool = field(default=False, metadata=LATER)
    experts: Experts | None = field(default=None, metadata=LATER)
    # not in the repr, by which a resumed run is compared
    context: int | None = field(default=None, repr=False)

    def __post_init__(self):
        for name in ("vocab_size", "width", "depth", "heads", "kv_heads", "head_dim", "mlp_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        words = {"activation": ACTIVATIONS, "norm": NORMS, "qk_norm_over": QK_NORMS}
        for name, allowed in words.items():
            given = getattr(self, name)
            if given not in allowed:
                raise ValueError(f"{name}={given!r} is unknown{did_you_mean(given, allowed)}")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"{self.heads} heads do not divide into {self.kv_heads} key/value heads"
            )
        for name in ("windowed", "no_rope", "delta_layers"):
            if (count := len(getattr(self, name))) not in (0, self.depth):
                raise ValueError(f"{name} names {count} layers, depth is {self.depth}")
        if (self.delta is None) != (not any(self.delta_layers)):
            raise ValueError(
                "delta and delta_layers describe the same layers: give both or neither"
            )
        if self.delta is not None and all(self.delta_layers):
            raise ValueError("one layer at least must have attention")
        if self.parallel and (self.post_norms or not self.pre_norms):
            raise ValueError("parallel attention and MLP share one norm, that of their input")
        if self.window is None and (any(self.windowed) or self.local_rope is not None):
            raise ValueError("windowed layers or a local_rope need a window")

    @property
    def scale(self) -> float:
        """Factor of the attention logits."""
        return self.head_dim**-0.5 if self.attn_scale is None else self.attn_scale

    @property
    def kinds(self) -> tuple[LayerType, ...]:
        """The kind of every layer."""
        full = LayerType(None, self.rope)
        local = LayerType(self.window, self.local_rope or self.rope)
        windowed = self.windowed or (self.window is not None,) * self.depth
        kinds = (local if w else full for w in windowed)
        without = self.no_rope or (False,) * self.depth
        kinds = [
            kind._replace(rope=None) if no else kind
            for kind, no in zip(kinds, without, strict=True)
        ]
        delta = self.delta_layers or (False,) * self.depth
        return tuple(DELTA if d else kind for d, kind in zip(delta, kinds, strict=True))

    def layers_of(self, part: str) -> tuple[int, ...]:
        """The layers that have a part, such as attn, delta or mlp."""
        if self.delta is None or part not in ("attn", "delta"):
            return tuple(range(self.depth))
        return tuple(i for i, delta in enumerate(self.delta_layers) if delta == (part == "delta"))

    @property
    def period(self) -> int:
        """The shortest p for which layer i is of the same kind as layer i % p."""
        kinds = self.kinds
        # At most the depth itself: layers that never repeat are one period.
        fits = (
            p
            for p in range(1, self.depth + 1)
            if all(k == kinds[i % p] for i, k in enumerate(kinds))
        )
        return next(fits)
