"""MAML and FOMAML: initial parameters that adapt in a few gradient steps (Finn et al. 2017)."""
