"""Networks of nothing but torch's own layers: equal to ours, for whatever knows torch alone."""

from ddarts_ext.nn.plain.fold import folded
from ddarts_ext.nn.plain.network import PlainNetwork, PlainStagedNetwork

__all__ = ["PlainNetwork", "PlainStagedNetwork", "folded"]
