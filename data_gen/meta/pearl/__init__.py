"""PEARL: a policy conditioned on a posterior over tasks (Rakelly et al. 2019)."""
