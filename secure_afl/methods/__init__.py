"""Learning methods, each a sequence of blind sums, found by the registry in `method`.

A module in here that defines a `Method` is a method of the project: nothing else has to name it. It
must not know which protocol carries a sum, nor where rows come from.
"""

from secure_afl.methods.afl import AFL
from secure_afl.methods.class_means import ClassMeans
from secure_afl.methods.fedacnnl import FedACnnL
from secure_afl.methods.fedavg import FedAvg, FedSGD
from secure_afl.methods.fedhip import FedHiP
from secure_afl.methods.method import AnyMethod, Memory, Method, PublicState, Task
from secure_afl.methods.networks.architecture import Linear
from secure_afl.methods.networks.convnet import ConvNet
from secure_afl.methods.pfedacnnl import PFedACnnL
from secure_afl.methods.softmax import Softmax

__all__ = [
    "AFL",
    "AnyMethod",
    "ClassMeans",
    "ConvNet",
    "FedACnnL",
    "FedAvg",
    "FedHiP",
    "FedSGD",
    "Linear",
    "Memory",
    "Method",
    "PFedACnnL",
    "PublicState",
    "Softmax",
    "Task",
]
