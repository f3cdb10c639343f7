import math

import numpy as np
import pytest
from scipy.stats import binomtest

from sdxl_engine.accuracy.paired import chance, locate_loss, sign_test, summarise
from sdxl_engine.errors import AccuracyError

BASELINE = 99.0
TIE = 1e-4


def noise(count=512, scale=0.05, seed=1):
    """Differences of two sound engines: symmetric, with tails far longer than a Gaussian's."""
    return scale * np.random.default_rng(seed).standard_t(2, count)


def black(count=512, every=10, seed=2):
    deltas = noise(count)
    deltas[::every] = -98 - np.random.default_rng(seed).random(len(deltas[::every]))
    return deltas


@pytest.mark.parametrize(("n", "critical"), [(6, 0), (10, 1), (12, 2), (20, 5), (25, 7), (50, 17), (100, 39)])
def test_critical_values_of_dixon_and_mood_at_5_percent(n, critical):
    def p(lower):
        return sign_test([-1.0] * lower + [1.0] * (n - lower)).p

    assert p(critical) <= 0.05 < p(critical + 1)


@pytest.mark.parametrize(("lower", "higher"), [(0, 0), (0, 5), (3, 3), (7, 4), (200, 312), (2400, 2600)])
def test_p_is_that_of_the_exact_binomial_test(lower, higher):
    test = sign_test([-2.0] * lower + [0.5] * higher + [0.0] * 9)
    assert (test.lower, test.higher, test.equal) == (lower, higher, 9)
    expected = binomtest(lower, lower + higher).pvalue if lower + higher else 1.0
    assert test.p == pytest.approx(expected, rel=1e-12)


def test_thousands_of_one_sign_need_no_float_in_between():
    assert sign_test([-1.0] * 5000).p == 0.0


def test_a_tie_has_a_width_and_both_its_ends():
    test = sign_test([-0.25, 0.25, -0.26, math.inf, -math.inf], tie=0.25)
    assert (test.lower, test.higher, test.equal) == (2, 1, 2)


def test_summary_of_differences():
    paired = summarise([-4.0, 1.0, 0.0, 2.0, -1.0])
    assert (paired.count, paired.mean, paired.median, paired.lowest, paired.highest) == (5, -0.4, 0.0, -4.0, 2.0)
    assert (paired.sign.lower, paired.sign.higher, paired.sign.equal) == (2, 2, 1)
    with pytest.raises(AccuracyError, match="no pairs"):
        summarise([])


@pytest.mark.parametrize(
    ("deltas", "kind"),
    [
        (np.full(512, -0.2), "broad"),
        (noise() - 0.2, "broad"),
        (-np.random.default_rng(3).exponential(1.0, 512), "broad"),
        (np.where(np.arange(512) % 2, -99.0, 0.0), "broad"),
        (np.full(512, -98.0) + noise(), "broad"),
        (black(), "few"),
        (np.where(np.arange(512) % 10, 0.0, -99.0), "few"),
        (np.where(np.arange(512) == 7, -99.0, 0.0), "few"),
        (noise(), "none"),
        (np.zeros(512), "none"),
        (noise() + 0.2, "none"),
        (np.array([-1.0]), "broad"),
    ],
    ids=[
        "uniform",
        "uniform with noise",
        "all by different amounts",
        "every other one black",
        "all captions swapped",
        "one in ten black, with noise",
        "one in ten black",
        "one black",
        "noise",
        "identical",
        "gain",
        "one prompt",
    ],
)
def test_where_a_loss_lies(deltas, kind):
    assert locate_loss(deltas.tolist(), BASELINE, TIE).kind == kind


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_hardly_ever_taken_for_a_loss(seed):
    """Two-sided at 5 %, half of it downwards: these twenty seeds hold none that the test rightly calls rare."""
    deltas = noise(seed=100 + seed)
    assert locate_loss(deltas.tolist(), BASELINE, TIE).kind == "none"


def test_equal_faults_are_counted_together_with_their_share():
    loss = locate_loss(black().tolist(), BASELINE, TIE)
    total = -black()[black() < -TIE].sum()
    assert loss.prompts == 52
    assert loss.share == pytest.approx(-black()[::10].sum() / total)
    assert 0.98 < loss.share < 1
    worst = np.sort(black())[: math.ceil(0.05 * 512)]
    assert loss.worst_share == pytest.approx(-worst.sum() / total)


def test_a_mean_that_fell_more_than_is_tolerated_counts_where_the_signs_are_even():
    deltas = [-0.3] + [0.0] * 199
    assert locate_loss(deltas, 1.0, TIE).kind == "few"
    assert locate_loss(deltas, 2.0, TIE).kind == "none"


@pytest.mark.parametrize(("p", "text"), [(0.6123, "p = 0.61"), (3e-5, "p = 3e-05"), (0.0, "p < 1e-6")])
def test_a_probability_in_words(p, text):
    assert chance(p) == text
