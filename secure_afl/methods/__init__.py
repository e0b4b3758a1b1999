"""Learning methods, each a sequence of blind sums, found by the registry in `method`.

A module in here that defines a `Method` is a method of the project: nothing else has to name it. It
must not know which protocol carries a sum, nor where rows come from.
"""

from secure_afl.methods.afl import AFL
from secure_afl.methods.alike import FedAU, FedStale, Scaffold
from secure_afl.methods.class_means import ClassMeans
from secure_afl.methods.fedacnnl import FedACnnL
from secure_afl.methods.fedavg import FedAvg, FedSGD
from secure_afl.methods.fedhip import FedHiP
from secure_afl.methods.fedhpro import FedHPro
from secure_afl.methods.fedproto import FedProto
from secure_afl.methods.frl import Frl
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import AnyMethod, Method, PublicState, Task
from secure_afl.methods.networks.architecture import Linear
from secure_afl.methods.networks.convnet import ConvNet
from secure_afl.methods.networks.mlp import Mlp
from secure_afl.methods.own import Training
from secure_afl.methods.pfedacnnl import PFedACnnL
from secure_afl.methods.private_gradient import PrivateGradient
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
    "Memory",
    "Method",
    "Mlp",
    "PFedACnnL",
    "PrivateGradient",
    "PublicState",
    "Scaffold",
    "Softmax",
    "Task",
    "Training",
]
