"""One-shot analytic federated learning over sums that nobody can look into.

    result = Federation(method=AFL(), protocol=Additive()).run(clients)
    result.model.predict(features)

A row's way, module by module: `data` (folders to images), `features` (images to features), then
`simulation`, which joins the two halves in `federation`: `quantise` and `statistics` (features to
one integer vector), the blind sum in `protocols`, `ridge` and `model` (sum to model), `report`.
"""

from protocols import Additive, Pairwise, Plain
from secure_afl.clients import ClientData
from secure_afl.errors import ConfigError, DataError, SecureAflError
from secure_afl.methods import AFL, ConvNet, FedAvg, FedHiP, FedSGD, Linear
from secure_afl.model import LinearModel, Model
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.privacy.mechanism import Privacy
from secure_afl.quantise import Quantiser
from secure_afl.simulation import Federation, Result
from secure_afl.statistics import Statistics

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
