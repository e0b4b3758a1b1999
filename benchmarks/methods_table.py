"""The table of the methods that are built in, made from their registry, for docs/methods.md."""

from msgspec.structs import replace

from protocols.layout import Layout
from secure_afl.analytic.quantise import Quantiser
from secure_afl.errors import ConfigError
from secure_afl.methods.method import METHODS, AnyMethod, Task
from secure_afl.privacy.mechanism import Mechanism, Privacy

# Rows of 8 × 8 pixels in ten classes, as the embedded digits are.
_DIGITS = Task(64, tuple("0123456789"), Quantiser(12), 4000, 1000, 4, bytes(32))
_NOISE = Mechanism(Privacy(1.0), 25, 4, 0, 1)


def methods_table() -> str:
    """Render a line for each method: its name, summary, number of sums, and their blocks."""
    rows = [
        (f"`{name}`", declared.summary, _number(declared()), _sums(declared()))
        for name, declared in METHODS.items()
        # Other distributions' methods have documents of their own.
        if declared.__module__.startswith("secure_afl.")
    ]
    head = ("method", "what it is", "sums", "integers in a client's vector")
    lines = (head, ("---", "---", "--:", "---"), *sorted(rows))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _number(method: AnyMethod) -> str:
    return f"≤ {method.sums}" if method.wants_noise else f"{method.sums}"


def _sums(method: AnyMethod) -> str:
    """Write out the blocks of each kind of sum, on the embedded digits."""
    task = replace(_DIGITS, mechanism=_NOISE) if method.wants_noise else _DIGITS
    if method.numeric:
        task = replace(task, classes=("y",))
    try:
        states = method.foreseen(task)
    except ConfigError:
        # A method of two classes.
        states = method.foreseen(replace(task, classes=("no", "yes")))
    layouts = [method.layout(state) for state in states]
    # Sums that differ in their noise alone are alike here.
    kinds = dict.fromkeys(_blocks(layout) for layout in layouts if layout is not None)
    return "; then ".join(kinds)


def _blocks(layout: Layout) -> str:
    return " + ".join(f"{block.name} {block.length:,}" for block in layout.blocks)
