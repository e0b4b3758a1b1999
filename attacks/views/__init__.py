"""What a party or coalition had of a run, and what its own secrets open of it.

It must not know any attack, nor anything that its parties did not have.
"""
