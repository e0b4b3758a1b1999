"""What gradient methods train: functions of one flat parameter vector. The linear one is here."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Wire
from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.methods.method import Task
from secure_afl.methods.model import LinearModel, Model

# Rows as an architecture takes them: float32 or float64, the first axis being that of the rows.
Inputs = NDArray[np.floating]


class Architecture(Wire, frozen=True):
    """A classifier whose parameters are one float64 vector, trained on mean cross-entropy.

    Attributes:
        images: rows are the pixels of images.
    """

    images: ClassVar[bool] = False

    @abstractmethod
    def initial(self, task: Task, rng: np.random.Generator) -> Floats:
        """Return parameters to begin with, (p,) float64.

        Raises:
            ConfigError: the architecture does not fit the task's features.
        """

    @abstractmethod
    def inputs(self, task: Task, features: NDArray[np.floating]) -> Inputs:
        """Make features (n, d) ready, once, for any number of gradients.

        The first axis of the result is n.
        """

    @abstractmethod
    def gradient(self, parameters: Floats, inputs: Inputs, labels: Integers) -> Floats:
        """Return the gradient of the rows' mean cross-entropy, (p,) float64.

        Args:
            parameters: (p,) float64.
            inputs: rows as `inputs` makes them.
            labels: (n,) int64 in 0..C−1.
        """

    @abstractmethod
    def model(self, task: Task, parameters: Floats) -> Model:
        """Make the classifier with these parameters."""


class Linear(Architecture, frozen=True, tag="linear"):
    """Softmax regression on frozen features, from zero, without a bias.

    Rows are brought to norm ≤ 1 as the task's quantiser does, so that AFL and the gradient methods
    fit the same kind of model to the same rows.
    """

    def initial(self, task: Task, rng: np.random.Generator) -> Floats:
        """Return d·C zeros, float64; `rng` goes unused."""
        return np.zeros(task.feature_dim * len(task.classes))

    def inputs(self, task: Task, features: NDArray[np.floating]) -> Inputs:
        """Scale rows to norm ≤ 1 by the task's quantiser: (n, d) float64.

        Raises:
            DataError: a NaN, an infinity, or a row whose norm overflows, naming the row.
        """
        return task.quantiser.scaled(features)

    def gradient(self, parameters: Floats, inputs: Inputs, labels: Integers) -> Floats:
        """Return ∇L = Fᵀ(softmax(FW) − Y)/n."""
        scores = inputs @ parameters.reshape(inputs.shape[1], -1)
        shares: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        shares[np.arange(len(labels)), labels] -= 1.0
        gradient: Floats = (inputs.T @ shares / len(labels)).ravel()
        return gradient

    def model(self, task: Task, parameters: Floats) -> LinearModel:
        """Reshape d·C parameters into the weights of a linear model, (d, C)."""
        return LinearModel(parameters.reshape(task.feature_dim, -1), task.classes)
