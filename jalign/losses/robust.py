"""RE-PO: any loss of pairs or of labeled responses made robust to wrong labels.

Cao et al. 2026, "RE-PO: Robust Enhanced Policy Optimization as a General Framework for LLM
Alignment". https://arxiv.org/abs/2509.24159, Eq. 2 to 7. On labeled responses it is new here.
"""

import inspect
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
from jax import Array

from jalign.losses._math import f32, require
from jalign.losses.binary.bco import bco
from jalign.losses.binary.kto import kto

Loss = Callable[..., tuple[Array, dict[str, Array]]]

_OWN = """\
  eta: how often the labels of the example's annotator are right, after the previous step, in
    [0, 1]; [B], or one number for all. NaN: not known yet.
  initial_eta: eta where it is not known yet, in (0, 1); 0.9 in the paper.
  eta_momentum: of eta, in [0, 1]; 0.9 (the paper's alpha, 0.1, is one minus it). 1 keeps eta.
"""
_FLIPPED = {"label": lambda x: ~(x > 0.5), "ref_response": lambda x: 1 - x}
"""Columns of the data -> what they are where the label is flipped."""
_CLAIMS = ("chosen_prob", "chosen_win_rate", "rejected_win_rate")
"""Columns that are part of the label, as `margin` is: the flipped label claims the same of the
other response."""


@cache
def re_po(loss: Loss) -> Loss:
    """q * l(label) + (1 - q) * l(flipped label), q = sigmoid(l(flipped) - l(label) + logit(eta)).

    q, without gradient, is the posterior probability that a label is right (the E-step of EM), if
    exp(-l) weighs the two labels and eta is how often the annotator is right. The M-step of eta is
    an exponential average of q over the annotator's examples. Of a pair the flipped label exchanges
    the responses and keeps what is claimed of them (margin, probability, win rate); of a single
    response it exchanges desirable and undesirable.

    Args:
      loss: of pairs (parameters named chosen_* and rejected_*) or of labeled responses (a parameter
        `label`), with one value per example.
    Returns:
      A loss with the parameters of `loss`, the array `eta` and the hyper-parameters `initial_eta`
      and `eta_momentum`. Its metrics are those of `loss`, the `posterior` q, and `eta`: eta + (1 -
      eta_momentum) * (q - eta), whose mean over an annotator's examples is the new eta.
    Raises:
      TypeError: a loss that reads neither pairs nor labels.
    Deviations: the paper weighs -log p of the probabilities p that exp(-l) induces. That is l
      itself where exp(-l(label)) + exp(-l(flipped)) = 1 (DPO, CPO, BCO, Bradley-Terry); for other
      losses (IPO, KTO, SimPO with a margin) l is kept, so that q = 1 gives the loss unchanged.
      eta is used within 1e-6 of [0, 1], at which q would never change again.
    >>> import jax.numpy as jnp
    >>> from jalign.losses import dpo
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> value, metrics = re_po(dpo)(*x, jnp.array(0.8), beta=0.5)
    >>> [round(float(v[0]), 4) for v in (value, metrics["posterior"], metrics["eta"])]
    [0.3975, 0.9158, 0.8116]
    """
    own = inspect.signature(loss)
    arrays = [p for p in own.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    names = {p.name for p in arrays}
    if not ("label" in names or any(n != flipped(n) for n in names)):
        raise TypeError(
            f"re_po needs a loss that reads pairs (chosen_*, rejected_*) or a label; "
            f"{loss.__name__} reads {', '.join(sorted(names))}"
        )
    # a loss of one side alone reads the other side where the label is flipped
    others = [p.replace(name=flipped(p.name)) for p in arrays if flipped(p.name) not in names]
    eta = inspect.Parameter("eta", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    hyper = [p for p in own.parameters.values() if p.kind is p.KEYWORD_ONLY]
    hyper += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=0.9)
        for name in ("initial_eta", "eta_momentum")
    ]
    # the step binds the axis by name; last, as in every loss
    hyper.sort(key=lambda p: p.name == "axis_name")
    signature = own.replace(parameters=[*arrays, *others, eta, *hyper])

    def robust(*args: object, **options: object) -> tuple[Array, dict[str, Array]]:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        given = dict(bound.arguments)
        old, start, momentum = (given.pop(n) for n in ("eta", "initial_eta", "eta_momentum"))
        require(0 < start < 1, f"initial_eta must be in (0, 1), got {start}")
        require(0 <= momentum <= 1, f"eta_momentum must be in [0, 1], got {momentum}")
        as_labeled = {name: x for name, x in given.items() if name in own.parameters}
        # statistics of the batch (KTO's z0, BCO's delta) are the same for both labels
        kept, metrics = loss(**as_labeled)
        swapped, _ = loss(**as_labeled | _flipped_arrays(given, names))
        (old,) = f32(old)
        old = jnp.where(jnp.isnan(old), start, old)
        sure = jnp.clip(old, 1e-6, 1 - 1e-6)
        q = jax.nn.sigmoid(swapped - kept + jnp.log(sure) - jnp.log1p(-sure))
        q = jax.lax.stop_gradient(q)  # with a gradient the policy would learn to doubt labels
        new = old + (1 - momentum) * (q - old)
        return q * kept + (1 - q) * swapped, metrics | {"posterior": q, "eta": new}

    # no __wrapped__: `inspect.signature` would follow it to the loss without eta
    robust.__name__ = robust.__qualname__ = f"re_po_{loss.__name__}"
    robust.__signature__ = signature  # type: ignore[attr-defined]
    robust.__doc__ = _documented(loss)
    return robust


def flipped(name: str) -> str:
    """The array that takes the place of this one where the label is flipped.

    >>> flipped("ref_chosen_logps"), flipped("rejected_len"), flipped("present")
    ('ref_rejected_logps', 'chosen_len', 'present')
    """
    if name in _CLAIMS:
        return name
    for one, other in (("chosen_", "rejected_"), ("rejected_", "chosen_")):
        if one in name:
            return name.replace(one, other)
    return name


def _flipped_arrays(given: dict[str, Array], names: set[str]) -> dict[str, Array]:
    """The arrays `names` of the loss where the label is flipped."""
    same = lambda x: x  # noqa: E731
    return {name: _FLIPPED.get(name, same)(given[flipped(name)]) for name in names}


def _documented(loss: Loss) -> str:
    """The docstring of a loss with what `re_po` adds to it."""
    doc = inspect.getdoc(loss) or ""
    head = f"`{loss.__name__}` robust to wrong labels, by EM (RE-PO): see `re_po`. The loss itself:"
    doc = doc.replace("Args:\n", f"Args:\n{_OWN}", 1) if "Args:\n" in doc else doc
    more = "Returns:\n  As below, with the `posterior` that a label is right and the new `eta`.\n  "
    return head + "\n\n" + doc.replace("Returns:\n  ", more, 1)


robust_kto = re_po(kto)
robust_bco = re_po(bco)
for _loss, _name in ((robust_kto, "robust_kto"), (robust_bco, "robust_bco")):
    _loss.__name__ = _loss.__qualname__ = _name
