"""Each warning of a report is said of a record that shows it, and of no other."""

import pytest

from jalign.report import alerts
from jalign.report.alerts import learning, rewards, steps
from tests.report._records import event, record, response, rows, session

STEPS = [2, 4, 6, 8, 10, 12, 14, 16]


def said(check, *parts, **options):
    alert = check(record(*parts, **options))
    return alert and alert.text


def train(**metrics):
    return rows("train", STEPS, **metrics)


def held(*steps, **metrics):
    return rows("eval", steps, **metrics)


def test_kl_that_grows_while_the_reward_does_not():
    kl = {"objective/kl": [0.0, 2.0, 4.0, 8.0]}
    grows = held(0, 4, 8, 12, reward=[0.1, 0.5, 0.52, 0.50], **kl)
    text = said(rewards.kl_without_reward, grows)
    assert text.startswith("KL grows, reward does not")
    assert "KL is 8 nats after 4, the reward 0.5 after 0.52" in text
    assert (
        said(rewards.kl_without_reward, held(0, 4, 8, 12, reward=[0.1, 0.3, 0.5, 0.9], **kl))
        is None
    )
    per_token = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8]
    rising = train(kl_k3=per_token, reward=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert said(rewards.kl_without_reward, rising) is None
    flat = train(kl_k3=per_token, reward=[0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.51, 0.49])
    assert "KL is 0.7 nats after 0.45" in said(rewards.kl_without_reward, flat)
    steady = {"objective/kl": [0.0, 4.0, 4.1, 4.2]}
    assert said(rewards.kl_without_reward, held(0, 4, 8, 12, reward=[0.5] * 4, **steady)) is None


def test_a_reward_that_rises_in_training_and_falls_on_held_out_prompts():
    rising = train(reward=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    text = said(rewards.held_out_reward_falls, rising, held(0, 8, 16, reward=[0.1, 0.6, 0.3]))
    assert "(0.55 to 0.75)" in text and "(0.6 to 0.3)" in text
    assert said(rewards.held_out_reward_falls, rising, held(0, 16, reward=[0.1, 0.6])) is None


def test_length_that_grows_or_shrinks():
    name = "completions/mean_length"
    assert "grew 2.1x: from 24 to 50.4" in said(
        rewards.length_changed, held(0, 8, **{name: [24, 50.4]})
    )
    assert "shrank 0.4x" in said(rewards.length_changed, held(0, 8, **{name: [50, 20]}))
    assert said(rewards.length_changed, held(0, 8, **{name: [24, 30]})) is None


def test_truncated_responses():
    ratio = {"completions/clipped_ratio": [0.1] * 7 + [0.61]}
    text = said(rewards.truncated, train(**ratio), config={"rollout": {"max_new_tokens": 24}})
    assert text.startswith("61% truncated") and "(24)" in text
    assert said(rewards.truncated, train(**{"completions/clipped_ratio": [0.2] * 8})) is None


def test_entropy_and_diversity_that_collapse():
    assert "entropy collapsed: from 2 to 0.5" in said(
        rewards.entropy_collapsed, train(entropy=[2.0, 1.8, 1.5, 1.2, 1, 0.8, 0.6, 0.5])
    )
    diversity = {"completions/distinct_2": [0.8, 0.3]}
    assert "distinct-2" in said(rewards.entropy_collapsed, held(0, 8, **diversity))
    sampled = [response(0, 1.0, logp=-2.0), response(1, 1.0, logp=-0.1)]
    assert "fell from 2 to 0.1" in said(rewards.entropy_collapsed, responses=sampled)
    assert said(rewards.entropy_collapsed, train(entropy=[2.0] * 8)) is None


def test_saturated_accuracy_while_the_held_out_one_falls():
    full = train(**{"rewards/accuracies": [0.6, 0.8, 0.9, 0.95, 1, 1, 1, 1]})
    falls = held(0, 8, 16, **{"rewards/accuracies": [0.5, 0.8, 0.7]})
    text = said(learning.saturated, full, falls)
    assert "training accuracy is 100%" in text and "from 80% (step 8) to 70%" in text
    still = held(0, 8, 16, **{"rewards/accuracies": [0.5, 0.8, 0.79]})
    assert said(learning.saturated, full, still) is None


def test_a_held_out_loss_that_rises_while_the_training_loss_falls():
    falling = train(loss=[0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.1])
    text = said(learning.held_out_loss_rises, falling, held(0, 8, 16, loss=[0.7, 0.4, 0.5]))
    assert "since step 8 (0.4 to 0.5)" in text
    online = train(loss=[0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.1], reward=[0.0] * 8)
    assert said(learning.held_out_loss_rises, online, held(0, 8, 16, loss=[0.7, 0.4, 0.5])) is None


def test_nothing_learned():
    assert "51.0%" in said(
        learning.nothing_learned, held(0, 8, **{"rewards/accuracies": [0.5, 0.51]})
    )
    assert said(learning.nothing_learned, held(0, 8, **{"rewards/accuracies": [0.5, 0.6]})) is None


def test_chosen_responses_that_become_less_likely():
    falls = {"logps/chosen": [-70.0, -90.0], "logps/rejected": [-71.0, -120.0]}
    assert "log-prob -70 to -90" in said(learning.both_fall, held(0, 8, **falls))
    assert said(learning.both_fall, held(0, 8, **{"logps/chosen": [-70.0, -72.0]})) is None


def test_gradients_that_are_always_clipped():
    config = {"optim": {"clip_norm": 1.0}}
    text = said(steps.always_clipped, train(grad_norm=[3, 2, 2, 4, 5, 2, 2, 2]), config=config)
    assert "(1) in 100% of the lines (median 2)" in text
    some = train(grad_norm=[3, 2, 2, 4, 5, 0.5, 2, 2])
    assert said(steps.always_clipped, some, config=config) is None
    assert said(steps.always_clipped, train(grad_norm=[3.0] * 8)) is None  # nothing is clipped


def test_steps_that_were_skipped():
    few = steps.skipped(record(rows("train", [100, 200], skipped=[0, 3])))
    assert few.text.startswith("3 steps were skipped") and not few.severe
    assert steps.skipped(record(train(skipped=[0, 0, 1, 1, 2, 2, 3, 3]))).severe
    assert steps.skipped(record(train(skipped=[0] * 8))) is None


def test_groups_whose_rewards_are_all_equal():
    share = {"frac_reward_zero_std": [0.0] * 7 + [0.75]}
    assert "75% of the groups" in said(rewards.idle_groups, train(reward_std=[0.1] * 8, **share))
    # one response per prompt has no spread, whatever is learned
    assert said(rewards.idle_groups, train(reward_std=[0.0] * 8, **share)) is None


@pytest.mark.parametrize(
    "check, name, bad, good, words",
    [
        (rewards.missing_rewards, "rewards/missing", 0.25, 0.0, "25% of the responses"),
        (rewards.useless_critic, "value/explained_variance", -0.5, 0.5, "variance -0.50"),
        (rewards.sampler_differs, "sampling/logp_difference_mean", 0.2, 0.01, "0.2 nat"),
    ],
)
def test_rewards_critics_and_samplers_that_fail(check, name, bad, good, words):
    assert words in said(check, train(**{name: [bad] * 8}))
    assert said(check, train(**{name: [good] * 8})) is None


def test_continuations_that_become_empty():
    def generations(step, *texts):
        return [{"step": step, "kind": "generations", "rows": [{"continuation": t} for t in texts]}]

    first = generations(0, "a", "b", "c", "")
    assert said(learning.empty_samples, first, generations(8, "a", " ", "", "")) == (
        "75% of the continuations are empty after training, 25% before."
    )
    assert said(learning.empty_samples, first, generations(8, "a", "b", "c", "")) is None


def test_a_best_evaluation_before_the_last():
    text = said(learning.best_was_earlier, held(0, 4, 8, reward=[0.1, 0.9, 0.5]))
    assert "was 0.9 at step 4, the last is 0.5" in text
    assert said(learning.best_was_earlier, held(0, 4, 8, reward=[0.1, 0.8, 0.9])) is None


def test_waiting_for_data_and_work_that_was_lost():
    timed = train(step_time=[1.0] * 8)
    waits = [event("phase", 9.0, name="waiting for data", seconds=8.0)]
    assert "8 s for batches, 50% of" in said(steps.waits_for_data, timed, events=waits)
    assert said(steps.waits_for_data, timed) is None
    killed = [session(1.0), event("phase", 5.0, 7, name="saving", seconds=1.0), session(9.0, 4)]
    assert said(steps.lost_work, events=killed).startswith("3 steps were taken twice")
    saved = [session(1.0), event("end", 5.0, 4, code=42), session(9.0, 4)]
    assert said(steps.lost_work, events=saved) is None


def test_severe_ones_come_first_and_what_the_run_warned_of_is_repeated():
    run = record(
        train(reward=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], skipped=[1] * 8),
        held(0, 8, 16, reward=[0.1, 0.6, 0.3]),
        rows("train", [20, 22], **{"completions/clipped_ratio": [1.0, 1.0]}),
        events=[
            event("message", 1.0, text="data: warning: 3 rows"),
            event("message", 1.0, text="x"),
        ],
    )
    severe = [alert.severe for alert in alerts.alerts_of(run)]
    assert severe == sorted(severe, reverse=True) and True in severe and False in severe
    assert [alert.text for alert in alerts.printed(run)] == ["data: 3 rows"]


def test_a_sound_run_and_an_empty_one_have_none():
    sound = record(
        train(loss=[0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.3, 0.28], grad_norm=[0.5] * 8),
        held(0, 8, 16, loss=[0.7, 0.4, 0.3], **{"rewards/accuracies": [0.5, 0.8, 0.9]}),
        config={"optim": {"clip_norm": 1.0}},
    )
    assert alerts.alerts_of(sound) == alerts.alerts_of(record()) == []
