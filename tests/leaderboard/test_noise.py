"""Wrong labels, and unbalanced binary feedback."""

import numpy as np
import pytest

from jalign.leaderboard.noise import binary, inverted, noisy
from jalign.leaderboard.setting import Setting
from jalign.leaderboard.spec import Method, Spec

MARGINS = [0.4, -0.9, 0.1, 0.7, 0.2]


def test_uniform_noise_inverts_the_share_exactly_and_depends_on_the_seed():
    flips = [inverted(range(50), "uniform", 0.2, seed) for seed in (0, 0, 1)]
    assert [int(x.sum()) for x in flips] == [10, 10, 10]
    assert (flips[0] == flips[1]).all() and (flips[0] != flips[2]).any()


@pytest.mark.parametrize("kind", ["uniform", "annotator"])
def test_the_pairs_that_are_read_first_are_as_noisy_as_all(kind, tmp_path):
    setting = Setting(Spec(start="embedded", methods={"dpo": Method(name="dpo")}), tmp_path)
    shares = []
    for seed in range(20):
        clean, wrong = setting.drawn(seed), setting.drawn(seed, kind, 0.4)
        assert [a["prompt"] for a in clean] == [b["prompt"] for b in wrong]
        shares.append(np.mean([a != b for a, b in zip(clean[:200], wrong[:200], strict=True)]))
    assert np.mean(shares) == pytest.approx(0.4, abs=0.02) and max(shares) < 0.6


def test_an_annotator_is_wrong_about_all_pairs_or_none():
    flips = inverted(range(4000), "annotator", 0.2, 3)
    annotators = np.random.default_rng((3, 1))
    annotators.permutation(20)
    of = annotators.integers(20, size=4000)
    shares = [flips[of == a].mean() for a in range(20)]
    assert sorted(shares) == [0.0] * 16 + [1.0] * 4


def test_the_clearest_pairs_are_those_with_the_largest_margins_of_either_sign():
    assert inverted(MARGINS, "clearest", 0.4, 0).tolist() == [False, True, False, True, False]
    assert not inverted(MARGINS, "none", 0.0, 0).any()
    with pytest.raises(ValueError, match="got 'clear'"):
        inverted(MARGINS, "clear", 0.1, 0)


def test_an_inverted_pair_exchanges_its_responses_and_keeps_the_rest():
    rows = [{"prompt": f"p{i}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(5)]
    flipped = noisy(rows, MARGINS, "clearest", 0.2, 0)
    assert flipped[1] == {"prompt": "p1", "chosen": "r1", "rejected": "c1"}
    assert [row for i, row in enumerate(flipped) if i != 1] == [rows[i] for i in (0, 2, 3, 4)]


@pytest.mark.parametrize(("share", "good", "bad"), [(0.5, 12, 12), (0.8, 12, 3), (0.25, 4, 12)])
def test_binary_rows_have_the_share_of_desirable_ones(share, good, bad):
    rows = [{"prompt": f"p{i}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(12)]
    kept = binary(rows, share, 0)
    labels = [row["label"] for row in kept]
    assert (sum(labels), len(labels) - sum(labels)) == (good, bad)
    assert all(row["completion"][0] == ("c" if row["label"] else "r") for row in kept)
    assert labels != sorted(labels) and labels != sorted(labels, reverse=True)
