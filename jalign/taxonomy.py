"""The survey's table of alignment methods (arXiv 2407.16216, Table 1), derived from the rows."""

from jalign import losses
from jalign.algorithms import ALGORITHMS
from jalign.core import TWO_MODELS, Algorithm, arrays_of

COLUMNS = (
    "algorithm", "feedback", "reward", "level", "reference", "policy", "SFT", "length", "negative",
    "Nash", "paper",
)  # fmt: skip


def taxonomy(row: Algorithm) -> tuple[str, ...]:
    """The cells of a row, in the order of `COLUMNS`."""
    arrays = arrays_of(row.loss)
    outputs = row.outputs(arrays)
    feedback = _feedback(row)
    explicit = row.needs_value_head or row.format.joint_prompt or row.format.policy_samples
    by_token = row.format.token_fields & set(arrays) or any(o in TWO_MODELS for o in outputs)
    if row.format.policy_samples:  # all read tokens; some add them up first
        by_token = row.loss_per_token
    hyper = row.hyperparameters
    with_sft = hyper.get("nll_coef", 0) != 0 or "sft" in row.tags or row.loss is losses.sft
    responses = [n for n in arrays if "chosen" in n or "rejected" in n]
    negative = bool(responses) and all("rejected" in n for n in responses)
    return (
        row.name,
        feedback,
        "-"
        if "none" in (feedback, row.format.feedback)
        else "explicit"
        if explicit
        else "implicit",
        "token" if by_token else "response",
        _reference(row),
        "on" if row.experience else "off",
        _yes(with_sft),
        _yes("length" in row.tags or any(n.endswith(("len", "lens")) for n in arrays)),
        _yes(negative or "negative" in row.tags),
        _yes("nash" in row.tags),
        f"[{row.paper}](https://arxiv.org/abs/{row.paper})",
    )


def _feedback(row: Algorithm) -> str:
    """The kind of feedback; an online method's is what it reads of the judged samples."""
    judged = set(row.rollout_inputs())
    if "win_probs" in judged:
        return "pair"
    if "step_scores" in judged:
        return "steps"
    if judged & {"scores", "reward_parts"}:
        return "score"
    # samples that nobody judges: a teacher's distillation
    return "none" if judged and row.format.policy_samples else row.format.feedback


def _reference(row: Algorithm) -> str:
    if row.needs_teacher:
        return "teacher"
    if not row.needs_reference():
        return "no"
    # the first may move or not: a cell is as wide as the longest word in it
    if row.has_last():
        return "two"
    return "moving" if row.moves_reference() else "yes"


def _yes(x: bool) -> str:
    return "yes" if x else "-"


def markdown() -> str:
    """The catalogue as a Markdown table."""
    lines = [
        COLUMNS,
        tuple("---" for _ in COLUMNS),
        *(taxonomy(row) for row in ALGORITHMS.values()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
