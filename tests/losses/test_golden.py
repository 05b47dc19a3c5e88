"""Golden values, computed once in float64 from the papers' formulas; batch means."""

import jax.numpy as jnp
import numpy as np

from jalign import losses

PC = jnp.array([-12, -20.5, -8.25, -31])
PR = jnp.array([-13.5, -18, -9, -29.5])
RC = jnp.array([-12.5, -19, -9, -30])
RR = jnp.array([-12.75, -18.5, -8.5, -30.25])
LW, LL = jnp.array([10.0, 16, 6, 25]), jnp.array([12.0, 14, 7, 22])


def mean(out):
    return float(out[0].mean())


def close(value, golden):
    np.testing.assert_allclose(value, golden, rtol=2e-6)


def test_dpo_and_cdpo():
    close(mean(losses.dpo(PC, PR, RC, RR, beta=0.1)), 0.711952)
    close(mean(losses.dpo(PC, PR, RC, RR, beta=0.1, label_smoothing=0.2)), 0.705702)


def test_ipo_summed_and_token_averaged():
    close(mean(losses.ipo_sum(PC, PR, RC, RR, tau=0.1)), 30.671875)
    close(mean(losses.ipo(PC, PR, RC, RR, LW, LL, tau=0.1)), 24.754939)


def test_simpo():
    close(mean(losses.simpo(PC, PR, LW, LL, beta=2.0, gamma=1.0)), 1.337131)


def test_orpo_is_its_term_plus_the_token_mean_of_the_chosen_nll():
    nll = float(-PC.sum() / LW.sum())
    close(nll + mean(losses.orpo(PC, PR, LW, LL, beta=0.1)), 1.329295)


def test_kto_with_z0_of_one_half():
    policy, ref = jnp.concatenate([PC, PR]), jnp.concatenate([RC, RR])
    yes, label = jnp.ones(8, bool), jnp.arange(8) < 4
    out = losses.kto(policy, ref, ref + 0.5, ref, yes, yes, label, beta=0.1)
    close(mean(out), 0.503884)


def test_bradley_terry():
    close(mean(losses.bradley_terry(PC / 10, PR / 10)), 0.718551)
