"""The ops: each a schema, a reference in plain torch, autograd, and compiled kernels where they were built."""

from ddarts_ext.ops._checks import autocasts
from ddarts_ext.ops._edges import AVERAGE, MAXIMUM, SKIP, Edges
from ddarts_ext.ops.channel_iim import channel_iim
from ddarts_ext.ops.grouped_batch_norm import GroupedNorm, grouped_batch_norm
from ddarts_ext.ops.mixed_edges import MixedEdges, mixed_edges
from ddarts_ext.ops.mixed_sum import MixedSum, mixed_sum
from ddarts_ext.ops.pool3x3 import Pooled, pool3x3
from ddarts_ext.ops.pool3x3_readers import pool3x3_readers_backward
from ddarts_ext.ops.recurrent_node import ACTIVATIONS, recurrent_node
from ddarts_ext.ops.relu_depthwise_conv2d import ReluDepthwise, relu_depthwise_conv2d
from ddarts_ext.ops.relu_pointwise_conv2d import relu_pointwise_conv2d
from ddarts_ext.ops.relu_separable_conv2d import relu_separable_conv2d
from ddarts_ext.ops.spawn_group import spawn_group

from ddarts_ext import _extension  # isort: skip  # the ops above must be defined before their kernels are loaded

_extension.load()

__all__ = [
    "ACTIVATIONS",
    "AVERAGE",
    "MAXIMUM",
    "SKIP",
    "Edges",
    "GroupedNorm",
    "MixedEdges",
    "MixedSum",
    "Pooled",
    "ReluDepthwise",
    "autocasts",
    "channel_iim",
    "grouped_batch_norm",
    "mixed_edges",
    "mixed_sum",
    "pool3x3",
    "pool3x3_readers_backward",
    "recurrent_node",
    "relu_depthwise_conv2d",
    "relu_pointwise_conv2d",
    "relu_separable_conv2d",
    "spawn_group",
]
