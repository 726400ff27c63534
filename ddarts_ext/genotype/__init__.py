"""An architecture as a value, as a file and as text; where it comes from (alphas, published ones) and goes to."""

from ddarts_ext.genotype.cell import Cell, Gene
from ddarts_ext.genotype.derivation import derive
from ddarts_ext.genotype.discretisation import discretize
from ddarts_ext.genotype.files import architectures
from ddarts_ext.genotype.value import Genotype, ReductionRule

__all__ = ["Cell", "Gene", "Genotype", "ReductionRule", "architectures", "derive", "discretize"]
