"""Training a network with a given genotype: see trainer.py."""
