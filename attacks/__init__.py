"""What an adversary gets out of what it really saw.

An attack takes a view (`views`), cut from a run's record, and returns what it found. Those that lie
say how in a ploy, which is told in a session of real parties. Rooms are named by what is looked at.
It must not change what runs do: protocols and methods know nothing of it.
"""
