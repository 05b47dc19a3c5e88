"""BCO's density ratio, by a classifier of prompts."""

import numpy as np
import pytest

from jalign.data.density import density_ratio


def test_prompts_that_say_nothing_about_the_label_have_ratio_one():
    features = np.repeat(np.random.default_rng(0).normal(size=(30, 4)), 2, axis=0)
    ratio = density_ratio(features, np.tile([1.0, 0.0], 30))
    np.testing.assert_allclose(ratio, 1.0, rtol=1e-5)


def test_unequal_classes_do_not_move_the_ratio():
    features = np.repeat(np.random.default_rng(0).normal(size=(30, 4)), 4, axis=0)
    ratio = density_ratio(features, np.tile([1.0, 0.0, 0.0, 0.0], 30))
    np.testing.assert_allclose(ratio, 1.0, rtol=1e-5)


def test_the_ratio_is_that_of_the_densities():
    rng = np.random.default_rng(1)
    labels = np.arange(4000) % 2
    x = rng.normal(size=4000) + np.where(labels, 0.5, -0.5)  # log ratio of the two normals: x
    ratio = density_ratio(x[:, None], labels, ridge=1e-3)
    assert np.abs(np.log(ratio) - x).max() < 0.3


def test_one_class_alone_is_an_error():
    with pytest.raises(ValueError, match="one is missing"):
        density_ratio(np.ones((3, 2)), np.ones(3))
