"""The rounds of a run as a chain, which every party computes for itself.

A round's context hashes the round before it: its context, what the collector signed about its sum,
and the public state that followed. Whoever forms the sessions can then neither give one round twice
nor show two parties different histories. A collector that lies about its own sum can still choose
the state; where the state reveals the total anyway, clients are sent that total and recompute it.

Read `history`, `position`, `checks` and `half`, in this order. It must not know which method is
learned, nor how messages travel.
"""
