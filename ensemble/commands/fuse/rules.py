"""Rules that combine the probabilities of several models, and how they are fitted.

A rule with parameters is fitted on validation images, so its scores on these images are
optimistic. `predict_out_of_fold` fits rules without the images that they predict
(Wolpert, Stacked generalization, Neural Networks 5, 1992).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from configs.errors import DataError

Method = Literal["average", "weighted", "stacking"]

_FOLDS = 5
_ROUNDS = 1000  # of expectation maximisation, at most
_CLOSE = 1e-7  # change of the weights at which it ends


@dataclass(frozen=True, eq=False)
class Mean:
    """The weighted mean of probabilities.

    Args:
        weights: Shape `(models,)`, at least 0, which sum to 1.
    """

    weights: np.ndarray

    def combine(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns shape `(n, c)` for probabilities of shape `(models, n, c)`."""
        return np.tensordot(self.weights, probabilities, axes=1)


@dataclass(frozen=True, eq=False)
class Stack:
    """A multinomial logistic regression on the probabilities of all models, side by side.

    Args:
        kernel: Shape `(models * c, c)`, the first c rows for the first model.
        bias: Shape `(c,)`.
    """

    kernel: np.ndarray
    bias: np.ndarray

    def combine(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns shape `(n, c)` for probabilities of shape `(models, n, c)`."""
        logits = _side_by_side(probabilities) @ self.kernel + self.bias
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)


Rule = Mean | Stack


def fit_rule(method: Method, probabilities: np.ndarray, labels: np.ndarray) -> Rule:
    """Fits a rule to the predictions of several models.

    "average" weights all alike. "weighted" maximises the likelihood of the labels.
    "stacking" is scikit-learn's `LogisticRegression` with its defaults.

    Args:
        method: The kind of rule.
        probabilities: Shape `(models, n, c)`.
        labels: True classes, shape `(n,)`; for "stacking" all c of them must occur.
    """
    models = len(probabilities)
    if method == "average":
        return Mean(np.full(models, 1 / models))
    if method == "weighted":
        return Mean(_fit_weights(probabilities[:, np.arange(len(labels)), labels]))
    regression = LogisticRegression(max_iter=2000).fit(_side_by_side(probabilities), labels)
    kernel, bias = regression.coef_.T, regression.intercept_
    if len(regression.classes_) == 2:  # scikit-learn keeps the logit of the second class alone
        kernel = np.hstack([np.zeros_like(kernel), kernel])
        bias = np.concatenate([np.zeros_like(bias), bias])
    return Stack(kernel, bias)


def predict_out_of_fold(
    method: Method,
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[str],
    groups: Sequence[str | None],
    seed: int,
) -> np.ndarray:
    """Returns the probabilities by rules that were fitted without the images they predict.

    Args:
        method: The kind of rule; "average" has nothing to fit.
        probabilities: Shape `(models, n, c)`.
        labels: True classes, shape `(n,)`.
        classes: Names of the c classes.
        groups: Of each image, or None; a group is never split.
        seed: Of the folds.

    Returns:
        Shape `(n, c)`.

    Raises:
        DataError: If a class has too few images or groups for two folds.
    """
    if method == "average":
        return fit_rule(method, probabilities, labels).combine(probabilities)
    names = np.array(
        [f"image {row}" if g is None else f"group {g}" for row, g in enumerate(groups)]
    )
    counts = [len(set(names[labels == label])) for label in range(len(classes))]
    if min(counts) < 2:
        raise _too_few(method, classes[int(np.argmin(counts))])
    folds = StratifiedGroupKFold(min(_FOLDS, *counts), shuffle=True, random_state=seed)
    combined = np.empty(probabilities.shape[1:])
    for kept, held_out in folds.split(labels, labels, names):
        for label, name in enumerate(classes):
            if label not in labels[kept]:
                raise _too_few(method, name)
        rule = fit_rule(method, probabilities[:, kept], labels[kept])
        combined[held_out] = rule.combine(probabilities[:, held_out])
    return combined


def _too_few(method: Method, name: str) -> DataError:
    return DataError(
        f"Class {name!r} has too few validation images, or groups of them, to fit --method "
        f"{method} on some and evaluate it on others. Use --method average."
    )


def _fit_weights(likelihoods: np.ndarray) -> np.ndarray:
    """Returns the weights of a mixture under which the labels are most probable.

    Expectation maximisation (Dempster, Laird and Rubin, 1977), from equal weights; the
    problem is convex, so it ends at the best.

    Args:
        likelihoods: Probabilities of the true classes, shape `(models, n)`.
    """
    likelihoods = np.maximum(likelihoods, np.finfo("float64").tiny)
    weights = np.full(len(likelihoods), 1 / len(likelihoods))
    for _ in range(_ROUNDS):
        shares = weights[:, None] * likelihoods
        updated = (shares / shares.sum(axis=0)).mean(axis=1)
        done = np.abs(updated - weights).max() < _CLOSE
        weights = updated
        if done:
            break
    return weights


def _side_by_side(probabilities: np.ndarray) -> np.ndarray:
    """Turns shape `(models, n, c)` into `(n, models * c)`."""
    return np.concatenate(list(probabilities), axis=1)
