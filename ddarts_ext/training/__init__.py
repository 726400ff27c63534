"""Training a network with a given genotype (trainer.py), and using what was trained (trained.py)."""

from ddarts_ext.training.evaluate import Evaluation, evaluate
from ddarts_ext.training.evaluate_numbers import LabelsEvaluation, NumbersEvaluation
from ddarts_ext.training.result import TrainResult
from ddarts_ext.training.trained import Predictions, TrainedNetwork, load_network
from ddarts_ext.training.trainer import Trainer

__all__ = [
    "Evaluation",
    "LabelsEvaluation",
    "NumbersEvaluation",
    "Predictions",
    "TrainResult",
    "TrainedNetwork",
    "Trainer",
    "evaluate",
    "load_network",
]
