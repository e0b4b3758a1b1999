"""Seats: one party of one session in one folder, which starts once and survives everything.

Read `vault`, `birthplace`, `journal`, `stored`, `lock`, `media`, `spool`, `ending`, `seat` and
`seats`, in this order. It must not know what protocol the party speaks, nor how messages travel.
"""
