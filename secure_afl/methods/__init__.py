"""Learning methods, each a sequence of blind sums."""

from secure_afl.methods.afl import AFL
from secure_afl.methods.fedavg import FedAvg, FedSGD
from secure_afl.methods.fedhip import FedHiP
from secure_afl.methods.method import AnyMethod, Memory, Method, PublicState, Task
from secure_afl.methods.networks.architecture import Linear
from secure_afl.methods.networks.convnet import ConvNet

__all__ = [
    "AFL",
    "AnyMethod",
    "ConvNet",
    "FedAvg",
    "FedHiP",
    "FedSGD",
    "Linear",
    "Memory",
    "Method",
    "PublicState",
    "Task",
]
