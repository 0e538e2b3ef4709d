"""Curvature of the loss in the adapters' numbers: products, extreme eigenvalues, and what they say of a step size."""
