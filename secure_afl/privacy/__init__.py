"""What noise promises: sensitivity, accounting, the noise itself, and the ledger of releases.

It must not know methods, sessions or files of data: layouts and numbers go in, noise comes out.
"""
