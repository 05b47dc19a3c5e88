"""Groups with holes: a response without a reward is left out, and no other is. Every online method,
from what rewards say to the examples that are learned from, against a computation by hand.
"""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jalign import algorithms
from jalign.core import Frozen
from jalign.data.examples import Example, Examples
from jalign.rewards.types import Judged
from jalign.rollout.types import Rollout
from jalign.run.response_rewards import bradley_terry
from jalign.train.online import Online
from jalign.train.rollout_spec import RolloutSpec

NAN = math.nan
ONLINE = [row for row in algorithms.ROWS if row.experience]
ADVANTAGES = [row for row in ONLINE if "advantages" in row.inputs()]
LENGTHS = np.array([[3, 1, 4, 2], [2, 4, 1, 3], [4, 3, 2, 1], [1, 2, 3, 4], [2, 3, 4, 1]])
SCORES = np.array(  # none, one, two and three are missing, and all
    [
        [0.5, -1.25, 2.0, 3.5],
        [7.0, NAN, 4.5, 9.75],
        [NAN, -3.0, NAN, 6.25],
        [NAN, NAN, 8.0, NAN],
        [NAN] * 4,
    ]
)
ENDED = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 1]], bool)
B, R = 5, 4
STATE: Any = SimpleNamespace(params=None)  # nothing here reads a model
KL, EPSILON, NUMBERS = 0.3, 1e-4, np.random.default_rng(0)
OLD, REF, VALUES = -NUMBERS.uniform(0.1, 3, (3, B, 4, R))
TEACHER = OLD + NUMBERS.normal(size=OLD.shape)
SQUARES = np.log(np.exp(OLD) ** 2 + 0.1)  # of log_sum_p_squared
PARTS, WEIGHTS = np.stack([SCORES, SCORES**2], -1), np.array([0.5, 2.0])


def columns(row):
    """Which of the four responses a method gets; the first and third where it compares two."""
    assert row.experience
    k = (
        row.experience.responses
        if row.experience.opponent == "last"
        else 2
        if row.experience.opponent != "policy"
        else row.format.k
        if row.name.startswith("gkd")
        else 4
    )
    return [0, 2] if k == 2 else [0, 1, 2, 3][:k]


def online(row, scores=SCORES, ended=ENDED, masks=False, hyper=None):
    """A source whose models and rewards are the numbers above."""
    at = columns(row)
    rollout = Rollout.from_lists(
        [np.array([9], np.int32)] * B,
        [[np.arange(1, n + 1) for n in lengths[at]] for lengths in LENGTHS],
        finished=ended[:, at],
    )
    steps = np.where(np.arange(R) < LENGTHS[..., None], scores[..., None], np.nan)
    parts = {"parts": PARTS[:, at], "part_weights": WEIGHTS}
    judged = Judged(scores[:, at], bradley_terry(scores[:, at], 1.0), {}, **parts)
    if row.name == "grpo_process":
        judged = judged._replace(step_scores=steps)
    first = np.zeros((B, 1), int)
    greedy, most_probable = Judged(np.full((B, 1), 0.75), None, {}), rollout.take(first)
    prompts = Examples.from_list(Example(np.array([9], np.int32), (), (), {}) for _ in range(B))
    source = Online(
        row.with_hyper(**(hyper or {})),
        prompts,
        lambda *_: rollout,
        lambda _, sampled: greedy if sampled is most_probable else judged,
        lambda *_: {},
        RolloutSpec(
            batch_size=B,
            prompts=B,
            responses=len(at),
            response_len=R,
            max_tokens=64,
            mask_truncated=masks,
        ),
        None,  # type: ignore[arg-type]
        seed=0,
        greedy=lambda *_: most_probable,
    )
    models = {"old_token_logps": OLD, "ref_token_logps": REF, "values": VALUES}
    models["old_log_sum_p_squared"] = SQUARES
    there = (np.arange(R) < LENGTHS[..., None])[:, at]
    fields = {n: np.where(there, x[:, at], 0).astype(np.float32) for n, x in models.items()}
    if "teacher_token_logps" in row.rollout_inputs():
        source.teacher = lambda *_: np.where(there, TEACHER[:, at], 0).astype(np.float32)
    source.scorer = lambda rollout, names, *_: {n: fields[n] for n in names}
    return source


def attempt(*args, **more):
    """The examples of one attempt at a rollout (of no prompt if none is kept), and the attempt."""
    source = online(*args, **more)
    attempt = source._attempt(0, 0, STATE, Frozen(None, None))  # type: ignore[arg-type]
    return attempt.selection.examples(source.prompts.report), attempt


# ---- by hand: response by response, those without a reward not being there


def kl(b, k):
    return OLD[b, k, : LENGTHS[b, k]] - REF[b, k, : LENGTHS[b, k]]


def token_rewards(score, b, k, coef):
    rewards = -coef * kl(b, k)
    rewards[-1] += score
    return rewards


def white(of, shift=True):
    """Lists of numbers of tokens, scaled by mean and deviation over all of them."""
    x = np.concatenate(list(of.values()))
    scale = 1 / np.sqrt(x.var() + 1e-8)
    return {i: (y - x.mean()) * scale + (0 if shift else x.mean()) for i, y in of.items()}


def gae(rewards, b, k, lam):
    values = [*VALUES[b, k, : len(rewards)], 0.0]
    out, after = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        after = rewards[t] + values[t + 1] - values[t] + lam * after
        out[t] = after
    return out


def by_baseline(kind, groups):
    """{(b, k): advantage of the response, or of its tokens} of `jalign.experience.baselines`."""
    s, out = SCORES, {}
    for b, of in enumerate(groups):
        x, n = s[b, of], LENGTHS[b, of]
        if kind == "opo":
            a = x - np.average(x, weights=n) if of else x
        elif kind == "maxrl":
            a = (x - x.mean()) / (x.mean() + 1e-6) if of and x.mean() > 0 else 0 * x
        elif kind == "others_mean":
            a = (x - x.mean()) * len(x) / (len(x) - 1) if len(x) > 1 else 0 * x
        elif kind == "pass_at_k":
            lead = np.diff(np.sort(x))[-1] / (x.std(ddof=1) + 1e-6) if len(x) > 1 else 0
            a = np.where(x == x.max(initial=-np.inf), lead, 0)
        elif kind == "lite_ppo":
            a = (x - x.mean()) / (s[np.isfinite(s)].std(ddof=1) + EPSILON) if of else x
        elif kind == "gdpo":
            parts, deviation = PARTS[b, of], PARTS[b, of].std(0, ddof=1) if len(of) > 1 else 1
            a = ((parts - parts.mean(0)) / (deviation + EPSILON)) @ WEIGHTS if of else x
        out |= {} if kind == "otb" else {(b, k): y for k, y in zip(of, a, strict=True)}
        for k in of if kind == "otb" else ():
            out[b, k] = np.array([s[b, k] - path_baseline(b, of, t) for t in range(LENGTHS[b, k])])
    if kind == "gdpo":
        every = np.array(list(out.values()))
        out = {i: (y - every.mean()) / (every.std(ddof=1) + EPSILON) for i, y in out.items()}
    return out


def path_baseline(b, of, t):
    """OTB's baseline of token t; 0 where one response alone reaches it."""
    there = [k for k in of if LENGTHS[b, k] > t]
    path = lambda k: (1 - 2 * np.exp(OLD[b, k]) + np.exp(SQUARES[b, k]))[: t + 1].sum()  # noqa: E731
    weights = [path(k) for k in there]
    return np.average(SCORES[b, there], weights=weights) if len(there) > 1 else 0.0


def by_teacher(kind):
    """{(b, k): advantages of the tokens} of all responses: none needs a reward."""
    teacher, out = TEACHER if kind == "self_distilled" else REF, {}
    for b, k in np.ndindex(B, 4):
        a = (teacher - OLD)[b, k, : LENGTHS[b, k]]
        before = np.cumsum(np.abs(a)) - np.abs(a)
        weighted = kind == "weighted_reverse_kl"
        out[b, k] = a * (1.5 - 0.5 * before / np.abs(a).sum()) if weighted else a
    return out


def expected(row, known, coef):
    """{(b, k): advantages of the tokens} of the responses that have a reward."""
    name, kind = row.name, row.experience.fn.__name__
    if row.experience.fn.__module__.endswith("distillation"):
        return by_teacher(kind)
    groups = [[k for k in columns(row) if known[b, k]] for b in range(B)]
    all_ = [(b, k) for b, of in enumerate(groups) for k in of]
    s, n = SCORES, {i: LENGTHS[i] for i in all_}
    flat = lambda of: {i: np.full(n[i], of[i]) for i in all_}  # noqa: E731
    if kind in ("gae", "gae_whitened"):
        rewards = {i: token_rewards(s[i], *i, coef) for i in all_}
        rewards = white(rewards, shift=False) if kind == "gae_whitened" else rewards
        return white({i: gae(rewards[i], *i, 0.95) for i in all_})
    if kind in ("returns_minus_value", "returns_whitened", "minus_greedy"):
        to_go = {i: np.cumsum(token_rewards(s[i], *i, coef)[::-1])[::-1] for i in all_}
        if kind == "returns_whitened":
            return white(to_go)
        less = {i: VALUES[i][: n[i]] if kind == "returns_minus_value" else 0.75 for i in all_}
        return {i: to_go[i] - less[i] for i in all_}
    if kind == "win_rate_leave_one_out":
        p = lambda b, k, j: 1 / (1 + np.exp(s[b, j] - s[b, k]))  # noqa: E731
        s = {(b, k): np.mean([p(b, k, j) for j in groups[b] if j != k]) for b, k in all_ if
             len(groups[b]) > 1}  # fmt: skip
        all_, kind = list(s), "leave_one_out"
        groups = [[k for k in of if len(of) > 1] for of in groups]
    if kind == "gae_length_adaptive":
        lam = {i: max(1 - 1 / (0.05 * n[i]), 0.0) for i in all_}
        return white({i: gae(np.append(np.zeros(n[i] - 1), s[i]), *i, lam[i]) for i in all_})
    if row.experience.fn.__module__.endswith("baselines"):
        return {i: np.broadcast_to(x, n[i]) for i, x in by_baseline(kind, groups).items()}
    total = {i: s[i] - coef * kl(*i).sum() for i in all_}
    if kind == "returns_minus_batch_mean":
        return flat({i: x - np.mean(list(total.values())) for i, x in total.items()})
    if kind == "leave_one_out":
        others = {(b, k): [total[b, j] for j in groups[b] if j != k] for b, k in all_}
        return flat({i: total[i] - np.mean(x) if x else 0.0 for i, x in others.items()})
    away = {(b, k): s[b, k] - np.mean([s[b, j] for j in groups[b]]) for b, k in all_}
    if kind == "group_centred":
        return flat(away)
    if kind == "group_mean_whitened":
        return white(flat(away))
    times = {i: 1 for i in all_}
    if kind == "steps_normalized":  # here every token is a step
        away = {(b, k): s[b, k] - np.average([s[b, j] for j in groups[b]],
                weights=[n[b, j] for j in groups[b]]) for b, k in all_}  # fmt: skip
        times = n
    of_group = [np.repeat([away[b, k] for k in of], [times[b, k] for k in of])
                for b, of in enumerate(groups)]  # fmt: skip
    deviation = [x.std(ddof=1) if len(set(x)) > 1 else np.inf for x in of_group]
    normal = {(b, k): away[b, k] / (deviation[b] + EPSILON) for b, k in all_}
    if kind == "steps_normalized":
        return {i: normal[i] * np.arange(n[i], 0, -1) for i in all_}
    covariance = ("random_high_covariance", "highest_covariance")
    assert kind in ("group_normalized", "informative_groups", *covariance), name
    return flat(normal)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(
    "row", [r for r in ADVANTAGES if r.experience.opponent == "policy"], ids=lambda row: row.name
)
def test_advantages_are_those_of_a_group_without_the_responses_that_have_no_reward(row, masks):
    coef = KL if "kl_coef" in row.experience_hyper() else 0.0
    examples, _ = attempt(row, masks=masks, hyper={"kl_coef": KL} if coef else None)
    found, of_prompt = {}, list(range(B))
    if row.name == "dapo":  # of one response there is nothing to learn
        of_prompt = [0, 1, 2]
    assert len(examples) == len(of_prompt)
    for b, example in zip(of_prompt, examples, strict=True):
        for k, scored in enumerate(example.scored):
            assert scored.all() or not scored.any()
            if scored.any():
                found[b, k] = np.array(example.extras["advantages"])[k, : len(scored)]
    known = np.isfinite(SCORES)
    wanted = expected(row, known, coef)
    if row.name == "dapo":
        wanted = {i: x for i, x in wanted.items() if i[0] < 3}
    # what was cut is not learned from, and counts in what the others are compared with
    wanted = {i: x for i, x in wanted.items() if ENDED[i] or not masks}
    assert set(found) == set(wanted)
    for i, x in wanted.items():
        np.testing.assert_allclose(found[i], x, rtol=2e-4, atol=2e-5, err_msg=f"{row.name} {i}")


def taken(row, masks=False, **more):
    """[(prompt, responses of the example)] by the lengths of the latter."""
    examples, found = attempt(row, masks=masks, **more)
    at, out = columns(row), []
    for example in examples:
        lengths = tuple(len(r) for r in example.responses)
        here = [b for b in range(B) if set(lengths) <= set(LENGTHS[b, at].tolist())]
        out.append((here, [int(n) for n in lengths]))
        assert all(scored.all() for scored in example.scored) == found.taught
    return out


PAIRS = [r for r in ONLINE if getattr(r.experience, "fn", None).__name__ == "best_and_worst"]


@pytest.mark.parametrize("row", PAIRS, ids=lambda row: row.name)
@pytest.mark.parametrize("masks", [False, True])
def test_the_best_and_the_worst_are_of_those_that_have_a_reward(row, masks):
    lengths = [LENGTHS[b, list(pair)].tolist() for b, pair in enumerate([(3, 1), (3, 2), (3, 1)])]
    if masks:  # what was cut is neither chosen nor rejected, and of the third prompt one is left
        lengths = [LENGTHS[b, list(pair)].tolist() for b, pair in enumerate([(2, 1), (3, 2)])]
    assert [n for _, n in taken(row, masks)] == lengths


def test_methods_that_choose_one_choose_of_those_that_have_a_reward():
    best = [LENGTHS[b, k] for b, k in enumerate((3, 3, 3, 2))]
    assert [n for _, n in taken(algorithms.get("raft"))] == [[n] for n in best]
    top = taken(algorithms.get("raft_top"), hyper={"alpha": 0.5})  # of 3.5, 9.75, 6.25 and 8
    assert [n for _, n in top] == [[best[1]], [best[3]]]


def test_rejection_sampling_and_win_rates_choose_of_those_that_have_a_reward():
    for b, pair in zip(range(3), taken(algorithms.get("rso_online")), strict=True):
        known = set(LENGTHS[b, np.isfinite(SCORES[b])].tolist())
        assert set(pair[1]) <= known and len(set(pair[1])) == 2
    pairs = [LENGTHS[b, list(pair)].tolist() for b, pair in enumerate([(3, 1), (3, 2), (3, 1)])]
    for name in ("dno_prct", "inpo", "comal"):
        assert [n for _, n in taken(algorithms.get(name))] == pairs, name


@pytest.mark.parametrize("name", ["egpo", "omwu"])
def test_a_pair_has_win_rates_only_if_every_comparison_is_known(name):
    """Of the first prompt alone all rewards are known; the second response wins less."""
    examples, _ = attempt(algorithms.get(name))
    (example,) = examples
    assert [len(r) for r in example.responses] == LENGTHS[0, :2].tolist()
    p = lambda k, j: 1 / (1 + math.exp(SCORES[0, j] - SCORES[0, k]))  # noqa: E731
    rates = [p(k, 2) if name == "egpo" else 2 * p(k, 2) - p(k, 3) for k in (0, 1)]
    found = [example.extras[f"{who}_win_rate"] for who in ("chosen", "rejected")]
    np.testing.assert_allclose(found, rates, rtol=1e-5)


@pytest.mark.parametrize("name", ["xpo", "nash_md", "nash_md_token", "nash_ema", "nash_mp"])
def test_of_two_responses_both_have_a_reward_or_neither_is_learned_from(name):
    """The first and the third: one reward is missing of the third and the fourth prompt."""
    row = algorithms.get(name)
    examples, _ = attempt(row)
    if name == "xpo":
        assert [len(e.responses[0]) for e in examples] == [LENGTHS[0, 2], LENGTHS[1, 0]]
        assert [float(e.extras["ref_response"]) for e in examples] == [1.0, 0.0]
        return
    assert [bool(e.scored[0].all()) for e in examples] == [True, True, False, False, False]
    won = [1 / (1 + math.exp(SCORES[b, 2] - SCORES[b, 0])) for b in range(2)]
    np.testing.assert_allclose(
        np.array([e.extras["win_prob"] for e in examples]).reshape(-1), [*won, 0.5, 0.5, 0.5], 1e-5
    )


@pytest.mark.parametrize("name", ["sppo_samples", "mpo"])
def test_a_win_rate_is_over_the_comparisons_that_are_known(name):
    """With itself in sppo_samples, with the others in mpo: 1/2 where there are none."""
    examples, _ = attempt(algorithms.get(name))
    known = [[0, 1, 2, 3], [0, 2, 3], [1, 3], [], []]
    for b, example in enumerate(examples):
        assert [k for k in range(4) if example.scored[k].any()] == known[b]
        for k in known[b]:
            of = [j for j in known[b] if j != k or name == "sppo_samples"]
            p = [1 / (1 + math.exp(SCORES[b, j] - SCORES[b, k])) for j in of]
            np.testing.assert_allclose(example.extras["win_prob"][k], np.mean(p), rtol=1e-5)


@pytest.mark.parametrize("name", ["gkd_on_policy", "spin_online"])
def test_methods_that_read_no_reward_only_look_at_it(name):
    row = algorithms.get(name)
    examples, found = attempt(row)
    assert len(examples) == B and found.taught and found.rewarded
    assert all(scored.all() for e in examples for scored in e.scored)
    assert found.metrics["rewards/missing"] == np.isnan(SCORES[:, columns(row)]).sum()


def test_the_optimal_value_is_of_the_reference_s_responses_that_have_a_reward():
    examples, _ = attempt(algorithms.get("a_star_po"))
    # of the first prompt 3.5 alone; of the second 9.75; the others lack one of the two
    assert [len(e.responses[0]) for e in examples] == LENGTHS[:2, 0].tolist()
    for b, other in enumerate((2, 2)):
        above = SCORES[b, 0] - SCORES[b, other]
        np.testing.assert_allclose(examples[b].extras["advantages"][0, 0], above, rtol=1e-5)


def test_the_margin_of_a_pair_is_the_difference_of_its_rewards():
    examples, _ = attempt(algorithms.get("rebel"))
    margins = [float(e.extras["margin"]) for e in examples]
    assert margins == [3.5 + 1.25, 9.75 - 4.5, 6.25 + 3.0]


def test_every_online_method_is_tested_here():
    tested = {r.name for r in ADVANTAGES} | {r.name for r in PAIRS}
    tested |= {"raft", "raft_top", "rso_online", "dno_prct", "xpo", "nash_md", "nash_md_token"}
    tested |= {"nash_ema", "sppo_samples", "gkd_on_policy", "spin_online", "rebel"}
    tested |= {"nash_mp", "mpo", "inpo", "comal", "egpo", "omwu"}
    assert tested == {row.name for row in ONLINE}


@pytest.mark.parametrize(
    "name",
    ["grpo", "rloo", "dr_grpo", "dapo", "reinforce", "online_dpo", "raft", "grpo_process"],
)
def test_rewards_that_lie_close_together_far_from_zero_keep_their_differences(name):
    row = algorithms.get(name)
    near, far = (attempt(row, scores=SCORES + offset)[0] for offset in (0, 1e8))
    assert len(near) == len(far)
    for a, b in zip(near, far, strict=True):
        assert [r.tolist() for r in a.responses] == [r.tolist() for r in b.responses]
        for field in a.extras:
            np.testing.assert_allclose(a.extras[field], b.extras[field], rtol=1e-5, atol=1e-5)


def test_a_rollout_teaches_something_or_nothing_and_says_which():
    equal, nothing = np.full_like(SCORES, 2.0), np.full_like(SCORES, NAN)
    lonely = np.where(np.arange(4) == 2, SCORES, NAN)
    for name in ("grpo", "rloo", "dapo", "online_dpo", "spo", "grpo_process"):
        row = algorithms.get(name)
        no_kl = {"kl_coef": 0.0} if "kl_coef" in row.experience_hyper() else None
        outcomes = [attempt(row, scores=x, hyper=no_kl) for x in (SCORES, equal, nothing, lonely)]
        taught = [found.taught for _, found in outcomes]
        assert taught == [True, False, False, False], name
        assert [found.rewarded for _, found in outcomes] == [True, True, False, True]
    row = algorithms.get("reinforce")  # against the whole rollout one reward per prompt is enough
    outcomes = [attempt(row, scores=x, hyper={"kl_coef": 0.0}) for x in (equal, lonely)]
    assert [found.taught for _, found in outcomes] == [False, True]
