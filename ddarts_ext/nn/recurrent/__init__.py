"""Recurrent networks: the cell of DARTS' language models, as a supernet and as an architecture."""

from ddarts_ext.nn.recurrent.cell import RecurrentCell
from ddarts_ext.nn.recurrent.dropout import Dropout, Masks
from ddarts_ext.nn.recurrent.language_model import LanguageModel, Output, of_genotype, supernet

__all__ = ["Dropout", "LanguageModel", "Masks", "Output", "RecurrentCell", "of_genotype", "supernet"]
