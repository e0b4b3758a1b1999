"""Learning methods, each a sequence of blind sums."""

from secure_afl.methods.afl import AFL
from secure_afl.methods.fedhip import FedHiP
from secure_afl.methods.method import AnyMethod, Memory, Method, PublicState, Task

__all__ = ["AFL", "AnyMethod", "FedHiP", "Memory", "Method", "PublicState", "Task"]
