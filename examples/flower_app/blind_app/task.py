"""Softmax regression on scikit-learn's digits, a share of them at each node."""

import numpy as np
from sklearn.datasets import load_digits

CLASSES = 10


def rows_of(partition: int, partitions: int) -> tuple[np.ndarray, np.ndarray]:
    """A node's rows, (n, 64) in 0..1, and their labels."""
    images, labels = load_digits(return_X_y=True)
    mine = np.arange(len(labels)) % partitions == partition
    return images[mine] / 16.0, labels[mine]


def initial() -> dict[str, np.ndarray]:
    """The model before the first round."""
    return {"weight": np.zeros((64, CLASSES), np.float32), "bias": np.zeros(CLASSES, np.float32)}


def train(
    model: dict[str, np.ndarray], rows: np.ndarray, labels: np.ndarray, rate: float
) -> dict[str, np.ndarray]:
    """Ten steps of gradient descent on all rows."""
    weight, bias = model["weight"].astype(np.float64), model["bias"].astype(np.float64)
    targets = np.eye(CLASSES)[labels]
    for _ in range(10):
        scores = rows @ weight + bias
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        apart = shares / shares.sum(axis=1, keepdims=True) - targets
        weight -= rate * rows.T @ apart / len(rows)
        bias -= rate * apart.mean(axis=0)
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def accuracy(model: dict[str, np.ndarray], rows: np.ndarray, labels: np.ndarray) -> float:
    """Share of right predictions."""
    return float(((rows @ model["weight"] + model["bias"]).argmax(axis=1) == labels).mean())
