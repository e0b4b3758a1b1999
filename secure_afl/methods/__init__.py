"""Learning methods, each a sequence of blind sums."""

from secure_afl.methods.afl import AFL
from secure_afl.methods.architecture import Linear
from secure_afl.methods.convnet import ConvNet
from secure_afl.methods.fedavg import FedAvg, FedSGD
from secure_afl.methods.fedhip import FedHiP
from secure_afl.methods.method import AnyMethod, Memory, Method, PublicState, Task

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
