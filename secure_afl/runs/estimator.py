"""A scikit-learn classifier whose `fit` is a simulated federation."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from protocols.protocol import PROTOCOLS
from secure_afl.analytic.priors import Prior
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import DataError
from secure_afl.federation.simulation import Federation
from secure_afl.methods.afl import AFL
from secure_afl.methods.model import LinearModel


class FederatedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """AFL over a simulated federation, as a scikit-learn classifier.

    Rows become one federation of real parties in this process; the model is that of all rows, and
    no party but the receiver of the sum sees more than its own.

    Args:
        clients: how many to deal the rows to, where `fit` is given no sites.
        head, prior, shrinkage, ridge, intercept, standardise: as `AFL` takes them.
        protocol: its name.
        seed: of the deal.

    Attributes:
        classes_: labels, sorted.
        n_features_in_: d.
        model_: the linear model.
        report_: of the run.
    """

    def __init__(
        self,
        clients: int = 3,
        *,
        head: str = "auto",
        prior: Prior | None = None,
        shrinkage: float | str | None = None,
        ridge: float | str | None = None,
        intercept: bool | None = None,
        standardise: bool | None = None,
        protocol: str = "additive",
        seed: int = 0,
    ) -> None:
        self.clients = clients
        self.head = head
        self.prior = prior
        self.shrinkage = shrinkage
        self.ridge = ridge
        self.intercept = intercept
        self.standardise = standardise
        self.protocol = protocol
        self.seed = seed

    def fit(self, X: Any, y: Any, sites: Any = None) -> Self:
        """Run the federation.

        Args:
            X: (n, d) features.
            y: (n,) labels of any kind.
            sites: (n,) whose each row is; by default rows are dealt at random.

        Raises:
            DataError: sites that are not one a row, or fewer than two.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"classifier needs 2 classes or more; the labels have {len(self.classes_)} class"
            )
        whose = self._sites(len(X), sites)
        parts = [
            ClientData(
                f"client_{place}", X[whose == place], labels[whose == place].astype(np.int64)
            )
            for place in range(int(whose.max()) + 1)
        ]
        method = AFL(
            head=self.head,
            prior=self.prior,
            shrinkage=self.shrinkage,  # type: ignore[arg-type]
            ridge=self.ridge,  # type: ignore[arg-type]
            intercept=self.intercept,
            standardise=self.standardise,
        )
        names = [str(name) for name in self.classes_]
        result = Federation(method, PROTOCOLS[self.protocol]()).run(parts, classes=names)
        self.model_: Any = result.model
        self.report_ = result.report
        return self

    def decision_function(self, X: Any) -> Any:
        """Score rows (n, d): (n, C), or (n,) for two classes, the second's less the first's."""
        scores = self._fitted().scores(self._checked(X))
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> Any:
        """Predict the label of each row, (n,)."""
        model = self._fitted()
        return self.classes_[model.predict(self._checked(X))]

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class, (n, C).

        Raises:
            DataError: the head has none.
        """
        return self._fitted().probabilities(self._checked(X))

    def _fitted(self) -> LinearModel:
        check_is_fitted(self)
        model: LinearModel = self.model_
        return model

    def _checked(self, X: Any) -> Any:
        return validate_data(self, X, reset=False, dtype=np.float64)

    def _sites(self, rows: int, sites: Any) -> Any:
        """Return the place of each row's site, (n,)."""
        if sites is None:
            order = np.random.default_rng(self.seed).permutation(rows)
            whose = np.empty(rows, dtype=np.int64)
            whose[order] = np.arange(rows) % min(self.clients, rows)
            return whose
        if len(sites) != rows:
            raise DataError(f"{len(sites)} sites for {rows} rows; give one a row")
        return np.unique(np.asarray(sites), return_inverse=True)[1]
