"""What schemes are built from: masks, and Shamir's secret sharing.

It must not know parties, sessions or steps: it takes keys and numbers, and returns numbers.
"""
