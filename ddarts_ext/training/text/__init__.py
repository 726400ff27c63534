"""Training language models: the network of a recurrent genotype, judged by its perplexity."""

from ddarts_ext.training.text.trainer import TextTrainer, TextTrainResult

__all__ = ["TextTrainResult", "TextTrainer"]
