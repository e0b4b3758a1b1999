"""One-shot analytic federated learning over sums that nobody can look into.

    result = Federation(method=AFL(), protocol=Additive()).run(clients)
    result.model.predict(features)

A row's way, module by module: `data` (folders to images), `features` (images to features), then
`simulation`, which joins the two halves in `federation`: `quantise` and `statistics` (features to
one integer vector), the blind sum in `protocols`, `ridge` and `model` (sum to model), `report`.
"""

from protocols import Additive, Pairwise, Plain
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError, DataError, SecureAflError
from secure_afl.federation.simulation import Federation, Result
from secure_afl.methods import AFL, ConvNet, FedAvg, FedHiP, FedSGD, Linear
from secure_afl.methods.model import LinearModel, Model
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.privacy.mechanism import Privacy

__all__ = [
    "AFL",
    "Additive",
    "Budget",
    "ClientData",
    "ConfigError",
    "ConvNet",
    "DataError",
    "FedAvg",
    "FedHiP",
    "FedSGD",
    "Federation",
    "Ledger",
    "Linear",
    "LinearModel",
    "Model",
    "Pairwise",
    "Plain",
    "Privacy",
    "Quantiser",
    "Result",
    "SecureAflError",
    "Statistics",
]
