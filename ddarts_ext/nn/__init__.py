"""Networks on top of the ops: mixed ops, search cells, supernets, discrete networks, counts."""

from ddarts_ext.nn.auxiliary import AuxiliaryHead
from ddarts_ext.nn.cell import Cell
from ddarts_ext.nn.count import MultiplyAdds, count_multiply_adds, count_parameters
from ddarts_ext.nn.dead import dead_parameters
from ddarts_ext.nn.features import FeatureNetwork
from ddarts_ext.nn.forward_pass import NodeKey, Observer, Pass
from ddarts_ext.nn.graph import SearchGraph
from ddarts_ext.nn.mixed import MixedNode, MixedOp
from ddarts_ext.nn.models import create_model, list_models
from ddarts_ext.nn.nasbench201 import NASBench201Network, NASBench201Supernet
from ddarts_ext.nn.network import DiscreteNetwork, build_network
from ddarts_ext.nn.norm import GroupedNorm
from ddarts_ext.nn.own import register_primitive
from ddarts_ext.nn.primitives import Primitive, Style, primitive
from ddarts_ext.nn.supernet import Supernet

__all__ = [
    "AuxiliaryHead",
    "Cell",
    "DiscreteNetwork",
    "FeatureNetwork",
    "GroupedNorm",
    "MixedNode",
    "MixedOp",
    "MultiplyAdds",
    "NASBench201Network",
    "NASBench201Supernet",
    "NodeKey",
    "Observer",
    "Pass",
    "Primitive",
    "SearchGraph",
    "Style",
    "Supernet",
    "build_network",
    "count_multiply_adds",
    "count_parameters",
    "create_model",
    "dead_parameters",
    "list_models",
    "primitive",
    "register_primitive",
]
