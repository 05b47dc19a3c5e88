"""Preference models: P(first better than second), from both responses read together.

Jiang, Ren, Lin 2023 (LLM-Blender, PairRM). https://arxiv.org/abs/2306.02561; Dong et al. 2024
(RLHF Workflow, the A/B model). https://arxiv.org/abs/2405.07863; scores from preferences: Liu et
al. 2023 (RSO). https://arxiv.org/abs/2309.06657.

Not a function of two separate scores, so it may be intransitive. Nash methods, SPPO, RSO and judges
ask for it.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32

CLOSEST = 1e-6  # to certainty; in float32 near 1, 1 - p still has a precision of 6 %


def pair_rm(
    chosen_scores: Float[Array, "B"], rejected_scores: Float[Array, "B"]
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """(-log sigmoid(s_w) - log sigmoid(-s_l)) / 2: each candidate judged in sight of the other.

    s_w and s_l come from ONE reading of both candidates, so s_w is the logit of "I am the better
    one", not a reward. At inference the logit of the preference is s_w - s_l.

    Args:
      chosen_scores, rejected_scores: the head at the positions of the two candidates in a joint
        prompt; which of them comes first is drawn at random in training.
    Returns:
      The unreduced loss, and the logits as `chosen_rewards`, `rejected_rewards`.
    Deviations: none in the loss, with one quality to compare (the authors average over several
      metrics); their head also reads the hidden state of the prompt.
    >>> import jax.numpy as jnp
    >>> round(float(pair_rm(jnp.array([1.5]), jnp.array([0.5]))[0][0]), 4)
    0.5877
    """
    chosen, rejected = f32(chosen_scores, rejected_scores)
    # each logit has its own sigmoid: one sigmoid of the difference leaves their sum free
    loss = -0.5 * (jax.nn.log_sigmoid(chosen) + jax.nn.log_sigmoid(-rejected))
    return loss, {"chosen_rewards": chosen, "rejected_rewards": rejected}


def preference_ab(
    chosen_logps: Float[Array, "B"],
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log p(right letter | prompt with both responses): a language model that answers A or B.

    The plain language-model loss on an answer of one token: "A" if the response shown first is the
    better one. Which is shown first is drawn at random. At inference P(A) is the softmax over the
    logits of the two letters alone.

    Args:
      chosen_logps: log-probability of the right letter, nats, over the WHOLE vocabulary.
    Returns:
      The unreduced loss, and `answer_prob`, the probability of the right letter.
    Deviations: none known from RLHFlow's pair-pm. The wrong letter has no part in the loss: its
      logit falls as that of any other token.
    >>> import jax.numpy as jnp
    >>> preference_ab(jnp.array([-0.5]))[0].tolist()
    [0.5]
    """
    (chosen,) = f32(chosen_logps)
    # over the whole vocabulary: normalized over A and B alone, both letters may become improbable
    return -chosen, {"answer_prob": jnp.exp(chosen)}


def symmetrised(p_ab: Float[Array, "*N"], p_ba: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """(p_ab + 1 - p_ba) / 2: P(first better), without the model's preference for a position.

    With it P(1 over 2) + P(2 over 1) = 1, which targets of Nash methods and SPPO presuppose.

    Args:
      p_ab: P(the one shown first is better) with response 1 shown first.
      p_ba: the same probability with response 2 shown first.
    Returns:
      P(response 1 better than response 2), in [0, 1].
    >>> import jax.numpy as jnp
    >>> symmetrised(jnp.array([0.875]), jnp.array([0.625])).tolist()
    [0.625]
    """
    p_ab, p_ba = f32(p_ab, p_ba)
    return (p_ab + 1 - p_ba) / 2


def pointwise_from_pairwise(p: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """log(p / (1 - p)), p = P(response better than a base response): one score per response.

    RSO's way from a preference model to a reward; the base is any response of the SFT policy to the
    same prompt. Scores against the same base can be compared.

    Args:
      p: in [0, 1], best symmetrised. Nearer to 0 or 1 than 1e-6 it counts as that.
    Returns:
      The logit, between -13.8 and 13.8.
    >>> import jax.numpy as jnp
    >>> round(float(pointwise_from_pairwise(jnp.array([0.75]))[0]), 4)
    1.0986
    """
    # first: a certain comparison would have an infinite score and a NaN gradient
    p = jnp.clip(f32(p)[0], CLOSEST, 1 - CLOSEST)
    return jnp.log(p) - jnp.log1p(-p)
