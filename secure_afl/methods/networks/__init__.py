"""The networks that methods train by gradients.

It must not know rounds or sums: parameters and rows go in, gradients and scores come out.
"""
