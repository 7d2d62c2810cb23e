"""Perplexity and token accuracy, against scikit-learn and the tasks' eval.py."""

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as reference

from edgekit_agent.failures import AgentError
from edgekit_agent.scoring import MetricOptions
from tests.builders.metrics.values import (
    check_weights,
    compute_row,
    compute_table,
    compute_trivial,
    compute_value,
    run_task,
)

PADDED = MetricOptions(ignore=-1)


@pytest.fixture
def streams():
    """Logits and tokens of streams of different lengths."""
    rng = np.random.default_rng(0)
    lengths = (3, 1, 7, 4)
    logits = [rng.normal(0, 3, (length, 9)).astype(np.float32) for length in lengths]
    return logits, [rng.integers(0, 9, length) for length in lengths]


def test_values_equal_those_of_scikit_learn(streams):
    logits, tokens = np.concatenate(streams[0]), np.concatenate(streams[1])
    shares = special.softmax(logits.astype(np.float64), axis=1)
    loss = reference.log_loss(tokens, shares, labels=range(9))
    assert compute_value("perplexity", *streams) == pytest.approx(np.exp(loss), rel=1e-10)
    hits = reference.accuracy_score(tokens, logits.argmax(axis=1))
    assert compute_value("token-accuracy", *streams) == pytest.approx(hits)


def test_a_sample_may_be_one_token_or_many_axes():
    logits = np.random.default_rng(1).normal(size=(6, 5))
    tokens = np.arange(6) % 5
    value = compute_value("perplexity", logits, tokens)
    assert compute_value("perplexity", logits[:, None], tokens[:, None]) == pytest.approx(value)
    shaped = compute_value("perplexity", [logits.reshape(2, 3, 5)], [tokens.reshape(2, 3)])
    assert shaped == pytest.approx(value)


def test_even_logits_of_any_size_give_the_size_of_the_vocabulary():
    assert compute_value("perplexity", [np.full((4, 8), 1e30)], [np.arange(4)]) == pytest.approx(8)
    assert compute_value("perplexity", [[-1e6, 1e6]], [0]) < np.inf


@pytest.mark.parametrize("name", ["perplexity", "token-accuracy"])
def test_ignored_tokens_do_not_count(name, streams):
    logits, tokens = streams
    padded = [np.concatenate([each, [-1, -1]]) for each in tokens]
    longer = [np.concatenate([each, np.ones((2, 9))]) for each in logits]
    assert compute_value(name, longer, padded, PADDED) == compute_value(name, logits, tokens)
    assert compute_row(name, np.ones((2, 9)), [-1, -1], PADDED).size == 0


@pytest.mark.parametrize("name", ["perplexity", "token-accuracy"])
def test_weights_count_like_repeated_samples(name, streams):
    check_weights(name, compute_table(name, *streams))


def test_trivial_values_are_those_of_the_frequencies_of_tokens():
    tokens = [np.array([0, 0, 1, -1]), np.array([0, 2, -1, -1])]
    shares = np.array([3, 1, 1]) / 5
    expected = np.exp(special.entr(shares).sum())
    assert compute_trivial("perplexity", tokens, PADDED) == pytest.approx(expected)
    assert compute_trivial("token-accuracy", tokens, PADDED) == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("output", "target", "said"),
    [
        (np.zeros((4, 9)), np.zeros(5), "has shape"),
        (np.zeros((9, 4)), np.zeros(9).reshape(3, 3), "has shape"),
        (np.zeros((2, 9)), np.array([0, 9]), "token 9 .* from 0 to 8"),
        (np.zeros((2, 9)), np.array([-1, 0]), "token -1 "),
        (np.zeros((2, 9)), np.array([0, 0.5]), "whole numbers"),
    ],
)
@pytest.mark.parametrize("name", ["perplexity", "token-accuracy"])
def test_outputs_that_do_not_fit_the_tokens_are_refused(name, output, target, said):
    with pytest.raises(AgentError, match=said):
        compute_row(name, output, target)


def test_perplexity_of_probabilities_is_refused():
    shares = special.softmax(np.random.default_rng(2).normal(size=(3, 4)), axis=1)
    with pytest.raises(AgentError, match="probabilities, not logits"):
        compute_row("perplexity", shares, np.zeros(3, int))


@pytest.mark.zoo
def test_values_of_a_real_language_model_equal_those_of_its_eval():
    task = run_task("lm-gpt-pysrc", 20)
    data = np.load(task.folder / "eval.npz")
    tokens, bounds = data["tokens"].astype(np.int64), data["off"]
    streams = sorted((tokens[bounds[i] : bounds[i + 1]] for i in range(20)), key=len)
    logits = [[] for _ in streams]
    first = 0
    for number, call in enumerate(task.calls):
        # Each call has the next token of a batch of streams; a batch starts with an empty cache.
        first += len(task.calls[number - 1][0]) if number and call[1].shape[2] == 1 else 0
        for row, scores in enumerate(call[0].reshape(len(call[0]), -1)):
            logits[first + row].append(scores)
    outputs = [np.array(each[: len(s) - 1]) for each, s in zip(logits, streams, strict=True)]
    targets = [stream[1:] for stream in streams]
    value = compute_value("perplexity", outputs, targets)
    assert value == pytest.approx(task.values["ppl"], rel=1e-9)
    assert compute_value("token-accuracy", outputs, targets) == pytest.approx(task.values["top1"])
    assert compute_trivial("perplexity", targets) > 2 * value
