"""From a client's gradient, or the mean of several, back to the pictures that it is of."""
