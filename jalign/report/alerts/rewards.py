"""Signs that the reward is gamed, or teaches nothing."""

from __future__ import annotations

from statistics import fmean

from jalign.report.alerts.trend import Alert, best_kind, ends, halves, noise
from jalign.report.charts import sampler_entropy
from jalign.report.record import RunRecord
from jalign.report.scale import compact


def kl_without_reward(run: RunRecord) -> Alert | None:
    """In the second half KL rises by a quarter and a nat, and the reward does not."""
    kind = best_kind(run, "objective/kl", least=3)
    name = "objective/kl"
    if kind is None:
        kind, name = "train", "kl_k3"
    kl, reward = run.series(kind, name), run.series(kind, "reward")
    # lines of training are of other prompts each
    if min(len(kl.values), len(reward.values)) < (3 if kind == "eval" else 8):
        return None
    (k0, k1), (r0, r1) = halves(kl.values), halves(reward.values)
    grown = k1 - k0 > (1.0 if name == "objective/kl" else 0.05) and k1 > 1.25 * k0
    if not grown or r1 - r0 > noise(reward.values):
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
    (before, after), best = halves(train.values), max(held.values)
    lost = best - held.values[-1]
    if after - before <= noise(train.values) or lost <= max(0.05 * abs(best), 1e-6):
        return None
    return Alert(
        f"the reward rises in training ({compact(before)} to {compact(after)}) and falls on "
        f"held-out prompts ({compact(best)} to {compact(held.values[-1])}).",
        severe=True,
    )


def length_changed(run: RunRecord) -> Alert | None:
    """Responses are at least 1.5 times as long, or as short, as in the beginning."""
    kind = best_kind(run, "completions/mean_length", least=2)
    series = run.series(kind or "train", "completions/mean_length")
    if len(series.values) < 2 or series.values[0] <= 0:
        return None
    first, last = ends(series)
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
    if not series.values or (share := ends(series)[1]) < 0.3:
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
            first, last = ends(series)
            if first > 0 and last < least * first:
                return Alert(
                    f"{label} collapsed: from {compact(first)} to {compact(last)}.", severe=True
                )
    estimated = sampler_entropy(run)
    if len(estimated.values) > 1 and not run.series("train", "entropy").values:
        first, last = ends(estimated)
        if first > 0 and last < 0.3 * first:
            return Alert(
                f"entropy collapsed: -log p of the sampled tokens fell from {compact(first)} to "
                f"{compact(last)} nats.",
                severe=True,
            )
    return None


def idle_groups(run: RunRecord) -> Alert | None:
    """In at least half of the groups all rewards are equal."""
    series = run.series("train", "frac_reward_zero_std")
    # a group of one response has no spread whatever the rewards are
    grouped = any(run.series("train", "reward_std").values)
    if not grouped or not series.values or (share := ends(series)[1]) < 0.5:
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
    if len(values) < 4 or (end := halves(values)[1]) > 0:
        return None
    return Alert(f"the critic explains nothing (explained variance {end:.2f}).")


def sampler_differs(run: RunRecord) -> Alert | None:
    """Sampler and trainer differ by more than 0.05 nat per token."""
    values = run.series("train", "sampling/logp_difference_mean").values
    if not values or (worst := max(values)) < 0.05:
        return None
    return Alert(f"sampler and trainer differ by up to {worst:.2g} nat per token.")
