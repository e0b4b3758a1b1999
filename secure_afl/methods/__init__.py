"""Learning methods, each a sequence of blind sums, found by the registry in `method`.

A module in here that defines a `Method` is a method of the project: nothing else has to name it. It
must not know which protocol carries a sum, nor where rows come from.
"""

from typing import TYPE_CHECKING

from protocols.lazy import lazily

if TYPE_CHECKING:
    from secure_afl.methods.afl import AFL
    from secure_afl.methods.alike import FedAU, FedStale, Scaffold
    from secure_afl.methods.class_means import ClassMeans
    from secure_afl.methods.fedacnnl import FedACnnL
    from secure_afl.methods.fedavg import FedAvg, FedSGD
    from secure_afl.methods.fedhip import FedHiP
    from secure_afl.methods.fedhpro import FedHPro
    from secure_afl.methods.fedproto import FedProto
    from secure_afl.methods.frl import Frl
    from secure_afl.methods.logistic import Logistic
    from secure_afl.methods.memory import Memory
    from secure_afl.methods.method import AnyMethod, Method, PublicState, Task
    from secure_afl.methods.networks.architecture import Linear
    from secure_afl.methods.networks.convnet import ConvNet
    from secure_afl.methods.networks.mlp import Mlp
    from secure_afl.methods.own import Training
    from secure_afl.methods.pfedacnnl import PFedACnnL
    from secure_afl.methods.private_gradient import PrivateGradient
    from secure_afl.methods.private_logistic import PrivateLogistic
    from secure_afl.methods.regression import Regression
    from secure_afl.methods.softmax import Softmax

__all__ = [
    "AFL",
    "AnyMethod",
    "ClassMeans",
    "ConvNet",
    "FedACnnL",
    "FedAU",
    "FedAvg",
    "FedHPro",
    "FedHiP",
    "FedProto",
    "FedSGD",
    "FedStale",
    "Frl",
    "Linear",
    "Logistic",
    "Memory",
    "Method",
    "Mlp",
    "PFedACnnL",
    "PrivateGradient",
    "PrivateLogistic",
    "PublicState",
    "Regression",
    "Scaffold",
    "Softmax",
    "Task",
    "Training",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "secure_afl.methods.afl": ("AFL",),
        "secure_afl.methods.alike": (
            "FedAU",
            "FedStale",
            "Scaffold",
        ),
        "secure_afl.methods.class_means": ("ClassMeans",),
        "secure_afl.methods.fedacnnl": ("FedACnnL",),
        "secure_afl.methods.fedavg": (
            "FedAvg",
            "FedSGD",
        ),
        "secure_afl.methods.fedhip": ("FedHiP",),
        "secure_afl.methods.fedhpro": ("FedHPro",),
        "secure_afl.methods.fedproto": ("FedProto",),
        "secure_afl.methods.frl": ("Frl",),
        "secure_afl.methods.logistic": ("Logistic",),
        "secure_afl.methods.memory": ("Memory",),
        "secure_afl.methods.method": (
            "AnyMethod",
            "Method",
            "PublicState",
            "Task",
        ),
        "secure_afl.methods.networks.architecture": ("Linear",),
        "secure_afl.methods.networks.convnet": ("ConvNet",),
        "secure_afl.methods.networks.mlp": ("Mlp",),
        "secure_afl.methods.own": ("Training",),
        "secure_afl.methods.pfedacnnl": ("PFedACnnL",),
        "secure_afl.methods.private_gradient": ("PrivateGradient",),
        "secure_afl.methods.private_logistic": ("PrivateLogistic",),
        "secure_afl.methods.regression": ("Regression",),
        "secure_afl.methods.softmax": ("Softmax",),
    },
)
