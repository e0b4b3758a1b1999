"""One-shot analytic federated learning over sums that nobody can look into.

    result = Federation(method=AFL(), protocol=Additive()).run(clients)
    result.model.predict(features)

A row's way, room by room: `data` (folders to images), `features` (images to features), `analytic`
(features to one integer vector), `methods` (what is summed), `federation` (the two halves, and the
simulation that joins them over `protocols`), `analytic` again (sum to weights), `runs` (settings to
files). It must not know the attacks.
"""

from typing import TYPE_CHECKING

from protocols.lazy import lazily

if TYPE_CHECKING:
    from protocols.schemes.additive import Additive
    from protocols.schemes.encrypted import Bfv, Ckks
    from protocols.schemes.pairwise import Pairwise
    from protocols.schemes.plain import Plain
    from secure_afl.analytic.quantise import Quantiser
    from secure_afl.analytic.rows import ClientData
    from secure_afl.analytic.statistics import Statistics
    from secure_afl.data.tables.design import Design, read_design
    from secure_afl.errors import ConfigError, DataError, SecureAflError
    from secure_afl.features.table import frame_rows
    from secure_afl.federation.result import Result
    from secure_afl.federation.simulation import Federation
    from secure_afl.methods.afl import AFL
    from secure_afl.methods.alike import FedAU, FedStale, Scaffold
    from secure_afl.methods.evaluated import evaluated
    from secure_afl.methods.fedacnnl import FedACnnL
    from secure_afl.methods.fedavg import FedAvg, FedSGD
    from secure_afl.methods.fedhip import FedHiP
    from secure_afl.methods.fedhpro import FedHPro
    from secure_afl.methods.fedproto import FedProto
    from secure_afl.methods.frl import Frl
    from secure_afl.methods.logistic import Logistic
    from secure_afl.methods.model import LinearModel, Model
    from secure_afl.methods.networks.architecture import Linear
    from secure_afl.methods.networks.convnet import ConvNet
    from secure_afl.methods.networks.mlp import Mlp
    from secure_afl.methods.own import Training
    from secure_afl.methods.pfedacnnl import PFedACnnL
    from secure_afl.methods.private_gradient import PrivateGradient
    from secure_afl.methods.private_logistic import PrivateLogistic
    from secure_afl.methods.regression import Regression
    from secure_afl.privacy.ledger import Budget, Ledger
    from secure_afl.privacy.mechanism import Privacy
    from secure_afl.runs.estimator import FederatedClassifier
    from secure_afl.runs.frames import table_federation

__all__ = [
    "AFL",
    "Additive",
    "Bfv",
    "Budget",
    "Ckks",
    "ClientData",
    "ConfigError",
    "ConvNet",
    "DataError",
    "Design",
    "FedACnnL",
    "FedAU",
    "FedAvg",
    "FedHPro",
    "FedHiP",
    "FedProto",
    "FedSGD",
    "FedStale",
    "FederatedClassifier",
    "Federation",
    "Frl",
    "Ledger",
    "Linear",
    "LinearModel",
    "Logistic",
    "Mlp",
    "Model",
    "PFedACnnL",
    "Pairwise",
    "Plain",
    "Privacy",
    "PrivateGradient",
    "PrivateLogistic",
    "Quantiser",
    "Regression",
    "Result",
    "Scaffold",
    "SecureAflError",
    "Statistics",
    "Training",
    "evaluated",
    "frame_rows",
    "read_design",
    "table_federation",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "protocols.schemes.additive": ("Additive",),
        "protocols.schemes.encrypted": (
            "Bfv",
            "Ckks",
        ),
        "protocols.schemes.pairwise": ("Pairwise",),
        "protocols.schemes.plain": ("Plain",),
        "secure_afl.analytic.quantise": ("Quantiser",),
        "secure_afl.analytic.rows": ("ClientData",),
        "secure_afl.analytic.statistics": ("Statistics",),
        "secure_afl.data.tables.design": ("Design", "read_design"),
        "secure_afl.errors": (
            "ConfigError",
            "DataError",
            "SecureAflError",
        ),
        "secure_afl.features.table": ("frame_rows",),
        "secure_afl.federation.result": ("Result",),
        "secure_afl.federation.simulation": ("Federation",),
        "secure_afl.methods.afl": ("AFL",),
        "secure_afl.methods.alike": (
            "FedAU",
            "FedStale",
            "Scaffold",
        ),
        "secure_afl.methods.evaluated": ("evaluated",),
        "secure_afl.methods.fedavg": (
            "FedAvg",
            "FedSGD",
        ),
        "secure_afl.methods.fedacnnl": ("FedACnnL",),
        "secure_afl.methods.fedhip": ("FedHiP",),
        "secure_afl.methods.fedhpro": ("FedHPro",),
        "secure_afl.methods.fedproto": ("FedProto",),
        "secure_afl.methods.frl": ("Frl",),
        "secure_afl.methods.pfedacnnl": ("PFedACnnL",),
        "secure_afl.methods.regression": ("Regression",),
        "secure_afl.methods.networks.architecture": ("Linear",),
        "secure_afl.methods.networks.convnet": ("ConvNet",),
        "secure_afl.methods.networks.mlp": ("Mlp",),
        "secure_afl.methods.logistic": ("Logistic",),
        "secure_afl.methods.model": (
            "LinearModel",
            "Model",
        ),
        "secure_afl.methods.own": ("Training",),
        "secure_afl.methods.private_gradient": ("PrivateGradient",),
        "secure_afl.methods.private_logistic": ("PrivateLogistic",),
        "secure_afl.privacy.ledger": (
            "Budget",
            "Ledger",
        ),
        "secure_afl.privacy.mechanism": ("Privacy",),
        "secure_afl.runs.estimator": ("FederatedClassifier",),
        "secure_afl.runs.frames": ("table_federation",),
    },
)
