"""What a reader of a run should be warned of: pure functions of its record, in words.

README.md in this folder explains each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from jalign.report.charts import sampler_entropy
from jalign.report.record import RunRecord, Series
from jalign.report.scale import compact, duration


class Alert(NamedTuple):
    """A sentence about a run; `severe` if its result is in doubt."""

    text: str
    severe: bool = False


Check = Callable[[RunRecord], "Alert | None"]


def alerts_of(run: RunRecord) -> list[Alert]:
    """All alerts, the severe ones first."""
    given = [alert for check in CHECKS if (alert := check(run))]
    return sorted(given, key=lambda alert: not alert.severe)


def kl_without_reward(run: RunRecord) -> Alert | None:
    """In the second half KL rises by a quarter and a nat, and the reward does not."""
    kind = _best_kind(run, "objective/kl", least=3)
    name = "objective/kl"
    if kind is None:
        kind, name = "train", "kl_k3"
    kl, reward = run.series(kind, name), run.series(kind, "reward")
    # lines of training are of other prompts each
    if min(len(kl.values), len(reward.values)) < (3 if kind == "eval" else 8):
        return None
    (k0, k1), (r0, r1) = _halves(kl.values), _halves(reward.values)
    grown = k1 - k0 > (1.0 if name == "objective/kl" else 0.05) and k1 > 1.25 * k0
    if not grown or r1 - r0 > _noise(reward.values):
        return None
    return Alert(
        f"KL grows, reward does not: in the second half of the run KL is {compact(k1)} nats after "
        f"{compact(k0)}, the reward {compact(r1)} after {compact(r0)}.",
        severe=True,
    )


def held_out_reward_falls(run: RunRecord) -> Alert | None:
    """The reward rises in training and falls on held-out prompts."""
    train, held = run.series("train", "reward"), run.series("eval", "reward")
    if len(train.values) < 4 or len(held.values) < 2:
        return None
    (before, after), best = _halves(train.values), max(held.values)
    lost = best - held.values[-1]
    if after - before <= _noise(train.values) or lost <= max(0.05 * abs(best), 1e-6):
        return None
    return Alert(
        f"the reward rises in training ({compact(before)} to {compact(after)}) and falls on "
        f"held-out prompts ({compact(best)} to {compact(held.values[-1])}).",
        severe=True,
    )


def length_changed(run: RunRecord) -> Alert | None:
    """Responses are at least 1.5 times as long, or as short, as in the beginning."""
    kind = _best_kind(run, "completions/mean_length", least=2)
    series = run.series(kind or "train", "completions/mean_length")
    if len(series.values) < 2 or series.values[0] <= 0:
        return None
    first, last = _ends(series)
    ratio = last / first
    if 2 / 3 < ratio < 1.5:
        return None
    word = "grew" if ratio > 1 else "shrank"
    return Alert(
        f"length {word} {ratio:.1f}x: from {compact(first)} to {compact(last)} tokens per response."
    )


def truncated(run: RunRecord) -> Alert | None:
    """At least 30 % of the last responses reach the limit."""
    series = run.series("train", "completions/clipped_ratio")
    if not series.values:
        series = run.series("eval", "completions/clipped_ratio")
    if not series.values or (share := _ends(series)[1]) < 0.3:
        return None
    limit = run.option("rollout.max_new_tokens")
    return Alert(
        f"{share:.0%} truncated: responses reach rollout.max_new_tokens ({limit}), and their "
        "rewards are of unfinished texts."
    )


def entropy_collapsed(run: RunRecord) -> Alert | None:
    """The entropy, or the diversity of responses, falls below 30 or 60 % of its first value."""
    for kind, name, least, label in (
        ("train", "entropy", 0.3, "entropy"),
        ("eval", "completions/distinct_2", 0.6, "the diversity of responses (distinct-2)"),
    ):
        series = run.series(kind, name)
        if len(series.values) > 1:
            first, last = _ends(series)
            if first > 0 and last < least * first:
                return Alert(
                    f"{label} collapsed: from {compact(first)} to {compact(last)}.", severe=True
                )
    estimated = sampler_entropy(run)
    if len(estimated.values) > 1 and not run.series("train", "entropy").values:
        first, last = _ends(estimated)
        if first > 0 and last < 0.3 * first:
            return Alert(
                f"entropy collapsed: -log p of the sampled tokens fell from {compact(first)} to "
                f"{compact(last)} nats.",
                severe=True,
            )
    return None


def saturated(run: RunRecord) -> Alert | None:
    """Training accuracy above 97 % while the held-out one falls by 3 points."""
    train, held = (run.series(kind, "rewards/accuracies") for kind in ("train", "eval"))
    if len(train.values) < 4 or len(held.values) < 2:
        return None
    end, best = _halves(train.values)[1], max(held.values)
    if end < 0.97 or best - held.values[-1] < 0.03:
        return None
    step = held.steps[held.values.index(best)]
    return Alert(
        f"overfitting: training accuracy is {end:.0%}, held-out accuracy fell from {best:.0%} "
        f"(step {step}) to {held.values[-1]:.0%}.",
        severe=True,
    )


def held_out_loss_rises(run: RunRecord) -> Alert | None:
    """The held-out loss ends more than 5 % above its lowest while the training loss falls."""
    train, held = run.series("train", "loss"), run.series("eval", "loss")
    # rewards of online runs decide there: their loss stays near 0 whatever is learned
    if run.series("train", "reward").values or len(train.values) < 4 or len(held.values) < 3:
        return None
    best, last = min(held.values), held.values[-1]
    (before, after) = _halves(train.values)
    if after >= before or last - best < 0.05 * abs(best):
        return None
    step = held.steps[held.values.index(best)]
    return Alert(
        f"the held-out loss rises since step {step} ({compact(best)} to {compact(last)}) while the "
        "training loss falls: stop.metric keeps the best checkpoint."
    )


def nothing_learned(run: RunRecord) -> Alert | None:
    """The held-out accuracy is that of chance after the last step."""
    held = run.series("eval", "rewards/accuracies")
    if len(held.values) < 2 or abs(held.values[-1] - 0.5) > 0.02:
        return None
    return Alert(
        f"held-out accuracy is {held.values[-1]:.1%}, as by chance: nothing was learned, or not "
        "yet.",
        severe=True,
    )


def both_fall(run: RunRecord) -> Alert | None:
    """The log-prob of chosen responses falls by more than 10 % and 5 nats."""
    kind = _best_kind(run, "logps/chosen", least=2)
    series = run.series(kind or "train", "logps/chosen")
    if len(series.values) < 2:
        return None
    first, last = _ends(series)
    if first - last < max(5.0, 0.1 * abs(first)):
        return None
    return Alert(
        f"chosen responses became less likely: log-prob {compact(first)} to {compact(last)} nats. "
        "Margins grow because rejected ones fall faster; a likelihood term (nll_coef) counters it."
    )


def always_clipped(run: RunRecord) -> Alert | None:
    """At least 95 % of the logged gradient norms are above optim.clip_norm."""
    limit, norms = run.option("optim.clip_norm", 0), run.series("train", "grad_norm").values
    if not limit or len(norms) < 5:
        return None
    share = fmean(norm > limit for norm in norms)
    if share < 0.95:
        return None
    return Alert(
        f"the gradient norm is above optim.clip_norm ({limit:g}) in {share:.0%} of the lines "
        f"(median {compact(sorted(norms)[len(norms) // 2])}): every step has the same length, and "
        "the learning rate alone sets it."
    )


def skipped(run: RunRecord) -> Alert | None:
    """Steps were skipped because loss or gradient was not finite."""
    series = run.series("train", "skipped")
    if not series.values or not series.values[-1]:
        return None
    return Alert(
        f"{series.values[-1]:.0f} steps were skipped: their loss or gradient was not finite.",
        severe=series.values[-1] > 0.02 * max(series.steps[-1], 1),
    )


def idle_groups(run: RunRecord) -> Alert | None:
    """In at least half of the groups all rewards are equal."""
    series = run.series("train", "frac_reward_zero_std")
    # a group of one response has no spread whatever the rewards are
    grouped = any(run.series("train", "reward_std").values)
    if not grouped or not series.values or (share := _ends(series)[1]) < 0.5:
        return None
    return Alert(
        f"in {share:.0%} of the groups all rewards are equal, and nothing is learned from them: "
        "prompts are too easy or too hard, or the reward has few values."
    )


def missing_rewards(run: RunRecord) -> Alert | None:
    """Responses without a reward."""
    values = run.series("train", "rewards/missing").values
    if not values or (share := fmean(values)) < 0.01:
        return None
    return Alert(f"{share:.0%} of the responses have no reward and are left out of the loss.")


def useless_critic(run: RunRecord) -> Alert | None:
    """The critic explains none of the returns' variance at the end."""
    values = run.series("train", "value/explained_variance").values
    if len(values) < 4 or (end := _halves(values)[1]) > 0:
        return None
    return Alert(f"the critic explains nothing (explained variance {end:.2f}).")


def sampler_differs(run: RunRecord) -> Alert | None:
    """Sampler and trainer differ by more than 0.05 nat per token."""
    values = run.series("train", "sampling/logp_difference_mean").values
    if not values or (worst := max(values)) < 0.05:
        return None
    return Alert(f"sampler and trainer differ by up to {worst:.2g} nat per token.")


def empty_samples(run: RunRecord) -> Alert | None:
    """More than 10 % of the continuations are empty after training, and more than before."""
    rows = [row for row in run.of("generations") if row.get("rows")]
    if len(rows) < 2:
        return None
    texts = [[str(x.get("continuation", "")) for x in row["rows"]] for row in (rows[0], rows[-1])]
    before, after = (fmean(not t.strip() for t in ts) if ts else 0.0 for ts in texts)
    if after <= 0.1 or after <= before:
        return None
    return Alert(f"{after:.0%} of the continuations are empty after training, {before:.0%} before.")


def best_was_earlier(run: RunRecord) -> Alert | None:
    """The last evaluation is clearly worse than the best one."""
    for name in ("reward", "rewards/accuracies"):
        held = run.series("eval", name)
        if len(held.values) < 3:
            continue
        best, last = max(held.values), held.values[-1]
        rise = best - held.values[0]
        if rise > 0 and best - last > 0.2 * rise and best - last > 0.01 * abs(best):
            step = held.steps[held.values.index(best)]
            return Alert(
                f"the best held-out {name} was {compact(best)} at step {step}, the last is "
                f"{compact(last)}."
            )
    return None


def waits_for_data(run: RunRecord) -> Alert | None:
    """The host waits for batches during more than 20 % of the time of training steps."""
    waited = sum(r["seconds"] for r in run.happened("phase") if r["name"] == "waiting for data")
    times = run.series("train", "step_time")
    if not waited or not times.values:
        return None
    total = fmean(times.values) * times.steps[-1]
    if waited < 0.2 * total or waited < 1:
        return None
    return Alert(
        f"the host waited {duration(waited)} for batches, {waited / total:.0%} of the training "
        "time."
    )


def lost_work(run: RunRecord) -> Alert | None:
    """Restarts after steps that were not saved."""
    lost, reached = 0, 0
    for row in run.events:
        if row["kind"] == "session":
            lost += max(reached - int(row["start"]), 0)
        reached = max(int(row["step"]), reached) if row["kind"] != "session" else int(row["start"])
    if not lost:
        return None
    times = "once" if len(run.restarts) == 1 else f"{len(run.restarts)} times"
    return Alert(
        f"{lost} steps were taken twice: the run was resumed {times} from an earlier "
        "checkpoint; checkpoint.every bounds that."
    )


def printed(run: RunRecord) -> Iterator[Alert]:
    """The warnings that the run itself has printed."""
    texts = dict.fromkeys(str(row["text"]) for row in run.happened("message"))
    for text in texts:
        where, mark, rest = text.partition("warning: ")
        if mark:
            yield Alert(where + rest)


CHECKS: tuple[Check, ...] = (
    kl_without_reward,
    held_out_reward_falls,
    entropy_collapsed,
    saturated,
    nothing_learned,
    length_changed,
    truncated,
    held_out_loss_rises,
    best_was_earlier,
    both_fall,
    always_clipped,
    skipped,
    idle_groups,
    missing_rewards,
    useless_critic,
    sampler_differs,
    empty_samples,
    waits_for_data,
    lost_work,
)


def _best_kind(run: RunRecord, name: str, least: int) -> str | None:
    """The held-out rows if there are enough of them, else those of training."""
    kinds = (kind for kind in ("eval", "train") if len(run.series(kind, name).values) >= least)
    return next(kinds, None)


def _halves(values: Sequence[float]) -> tuple[float, float]:
    """Means of the third and of the last quarter."""
    quarter = max(len(values) // 4, 1)
    return fmean(values[-2 * quarter : -quarter]), fmean(values[-quarter:])


def _ends(series: Series) -> tuple[float, float]:
    """Means of the first and of the last tenth."""
    tenth = max(len(series.values) // 10, 1)
    return fmean(series.values[:tenth]), fmean(series.values[-tenth:])


def _noise(values: Sequence[float]) -> float:
    """A standard error of the difference of two quarters' means.

    The variance of a value is that of its distance to the mean of its neighbors, over 1.5: a steady
    trend is no noise.
    """
    triples = zip(values, values[1:], values[2:], strict=False)
    bends = [b - (a + c) / 2 for a, b, c in triples]
    variance = fmean(x * x for x in bends) / 1.5 if bends else 0.0
    return math.sqrt(2 * variance / max(len(values) // 4, 1))
