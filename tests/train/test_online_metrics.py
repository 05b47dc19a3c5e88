"""What is logged of a rollout, by hand."""

import numpy as np

from jalign.train.online_metrics import critic_metrics

MASK = np.array([[[True, True, False], [True, False, False]]])
RETURNS = np.array([[[1.0, 3.0, 90.0], [5.0, 80.0, 70.0]]], np.float32)


def test_the_critics_explained_variance_is_one_minus_error_over_variance_of_tokens_that_count():
    values = np.array([[[1.0, 2.0, 7.0], [6.0, 8.0, 9.0]]], np.float32)  # errors 0, 1, 1
    found = critic_metrics({"values": values, "returns": RETURNS, "mask": MASK})
    # returns 1, 3, 5: mean 3, variance 8/3; mean square error 2/3
    np.testing.assert_allclose(found["value/explained_variance"], 1 - (2 / 3) / (8 / 3), rtol=1e-6)


def test_without_a_critic_nothing_is_said_of_it():
    assert critic_metrics({"returns": RETURNS, "mask": MASK}) == {}
