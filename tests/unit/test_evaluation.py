from __future__ import annotations

import json
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from mnist_core.evaluation import Counts, count_predictions, measure_reliability, rank_mistakes


def make_predictions(count, seed=0, digits=10):
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=1.5, size=(count, 10)).astype(np.float32)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True), generator.integers(0, digits, count, dtype=np.uint8)


def certain(*guesses, confidence=1.0):
    """Rows that give ``confidence`` to one digit and share the rest out."""
    probabilities = np.full((len(guesses), 10), (1 - confidence) / 9, np.float32)
    probabilities[np.arange(len(guesses)), guesses] = confidence
    return probabilities


def test_metrics_are_those_of_scikit_learn():
    probabilities, labels = make_predictions(2000)
    evaluation = count_predictions(probabilities, labels).evaluate()
    guesses = probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, guesses)
    assert (evaluation.count, evaluation.correct) == (2000, (guesses == labels).sum())
    assert evaluation.accuracy == metrics.accuracy_score(labels, guesses)
    np.testing.assert_array_equal(evaluation.confusion, metrics.confusion_matrix(labels, guesses))
    np.testing.assert_array_equal(evaluation.support, support)
    np.testing.assert_allclose(evaluation.precision, precision)
    np.testing.assert_allclose(evaluation.recall, recall)
    np.testing.assert_allclose(evaluation.f1, f1)
    rows = probabilities.astype(np.float64)
    assert evaluation.loss == pytest.approx(metrics.log_loss(labels, rows / rows.sum(axis=1, keepdims=True)), abs=1e-6)
    macro = evaluation.to_dict()["macro"]
    assert macro["precision"] == pytest.approx(metrics.precision_score(labels, guesses, average="macro"))
    assert macro["recall"] == pytest.approx(metrics.recall_score(labels, guesses, average="macro"))
    assert macro["f1"] == pytest.approx(metrics.f1_score(labels, guesses, average="macro"))


def test_calibration_error_is_that_of_its_definition():
    # Labels drawn from the probabilities: some bins are too confident, others not confident enough.
    probabilities, _ = make_predictions(3000, seed=1)
    draws = np.random.default_rng(1).uniform(size=(3000, 1))
    labels = np.minimum((probabilities.cumsum(axis=1) < draws).sum(axis=1), 9).astype(np.uint8)
    confidences, right = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for low in range(15):
        inside = (confidences > low / 15) & (confidences <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    assert count_predictions(probabilities, labels).evaluate().ece == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_a_hand_made_example():
    # Neighbouring bins: 4 images at confidence 0.9, all right; 2 images at 1.0, one right.
    probabilities = np.concatenate([certain(1, 2, 3, 4, confidence=0.9), certain(5, 6)])
    evaluation = count_predictions(probabilities, np.array([1, 2, 3, 4, 5, 0], np.uint8)).evaluate()
    assert evaluation.ece == pytest.approx((4 * 0.1 + 2 * 0.5) / 6)


def test_reliability_is_that_of_its_definition_with_wilson_s_intervals():
    probabilities, labels = make_predictions(500, seed=3)
    probabilities = np.concatenate([probabilities, certain(1, 1)])  # a share of 1 has an interval too
    labels = np.append(labels, [1, 1]).astype(np.uint8)
    found = measure_reliability(probabilities, labels)
    confidences, right = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels
    for low in range(15):
        inside = (confidences > low / 15) & (confidences <= (low + 1) / 15)
        values = (found.counts, found.confidence, found.accuracy, found.low, found.high)
        count, *shares = (column[low] for column in values)
        assert count == inside.sum()
        if not count:
            assert shares == [0, 0, 0, 0]
            continue
        interval = binomtest(int(right[inside].sum()), int(count)).proportion_ci(method="wilson")
        expected = [confidences[inside].mean(), right[inside].mean(), interval.low, interval.high]
        assert shares == pytest.approx(expected, abs=1e-9)
    assert found.ece == count_predictions(probabilities, labels).evaluate().ece


@given(st.data())
def test_shards_add_up_to_exactly_the_whole(data):
    count = data.draw(st.integers(1, 300))
    probabilities, labels = make_predictions(count, seed=count)
    order = np.array(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=6)))
    shards = [count_predictions(probabilities[rows], labels[rows]) for rows in np.split(order, cuts)]
    whole = count_predictions(probabilities, labels)
    merged = reduce(add, data.draw(st.permutations(shards)), Counts())
    assert merged.loss == whole.loss
    assert merged.evaluate().to_dict() == whole.evaluate().to_dict()


def test_a_certain_mistake_costs_no_more_than_the_clip():
    evaluation = count_predictions(certain(1), np.array([0], np.uint8)).evaluate()
    assert evaluation.loss == pytest.approx(-np.log(1e-7), abs=1e-9)


def test_a_certain_right_answer_costs_nothing():
    evaluation = count_predictions(certain(1, 2, 3), np.array([1, 2, 3], np.uint8)).evaluate()
    assert (evaluation.loss, evaluation.accuracy, evaluation.ece) == (0, 1, 0)


def test_rounding_moves_the_mean_loss_by_less_than_the_stated_bound():
    probabilities, labels = make_predictions(5000, seed=2)
    exact = -np.log(probabilities[np.arange(5000), labels].astype(np.float64)).mean()
    assert abs(count_predictions(probabilities, labels).evaluate().loss - exact) < 1.2e-10


def test_digits_never_seen_and_never_predicted_have_ratios_of_zero():
    evaluation = count_predictions(certain(1, 1, 2), np.array([1, 3, 3], np.uint8)).evaluate()
    assert evaluation.precision.tolist() == [0, 0.5, 0, 0, 0, 0, 0, 0, 0, 0]
    assert evaluation.recall.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert evaluation.f1[1] == pytest.approx(2 / 3)
    assert evaluation.confusion[3, 1] == 1
    assert evaluation.confusion[3, 2] == 1


def test_an_evaluation_survives_json():
    values = count_predictions(*make_predictions(500)).evaluate().to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert sum(row["support"] for row in values["per_class"]) == values["count"] == 500
    assert sum(map(sum, values["confusion"])) == 500
    assert [row["digit"] for row in values["per_class"]] == list(range(10))


def test_counts_of_no_images_add_nothing_and_cannot_be_divided():
    nothing = count_predictions(np.empty((0, 10), np.float32), np.empty(0, np.uint8))
    some = count_predictions(*make_predictions(50))
    assert (nothing + some + Counts()).evaluate().to_dict() == some.evaluate().to_dict()
    with pytest.raises(ValueError, match="received no images"):
        nothing.evaluate()


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1])
def test_values_that_are_no_probabilities_are_refused(value):
    probabilities, labels = make_predictions(5)
    probabilities[3, 3] = value
    with pytest.raises(ValueError, match="negative or not finite"):
        count_predictions(probabilities, labels)


@pytest.mark.parametrize("shape", [(4, 10), (5, 9), (50,)])
def test_probabilities_that_do_not_fit_the_labels_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(5, 10\)"):
        count_predictions(np.zeros(shape, np.float32), np.zeros(5, np.uint8))


def test_mistakes_are_ranked_by_confidence_and_then_by_position():
    confidences = [0.6, 0.9, 0.7, 0.9, 0.8]
    probabilities = np.concatenate([certain(1, confidence=confidence) for confidence in confidences])
    labels = np.array([0, 0, 1, 0, 0], np.uint8)
    assert rank_mistakes(probabilities, labels).tolist() == [1, 3, 4, 0]
    assert rank_mistakes(probabilities[:0], labels[:0]).tolist() == []
    ties = np.concatenate([certain(1, confidence=confidence) for confidence in (0.8, 0.7, 0.9, 0.7) * 250])
    expected = sorted(range(1000), key=lambda index: (-ties[index, 1], index))
    assert rank_mistakes(ties, np.zeros(1000, np.uint8)).tolist() == expected
