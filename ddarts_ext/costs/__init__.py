"""What networks cost: parameters and multiply-adds exactly, latency from a table of times measured on a device."""

from ddarts_ext.costs.budget import KINDS, CostBudget
from ddarts_ext.costs.costs import Costs, counted_costs
from ddarts_ext.costs.latency import LatencyTable
from ddarts_ext.costs.sizes import NetworkSizes, OpPlace

__all__ = ["KINDS", "CostBudget", "Costs", "LatencyTable", "NetworkSizes", "OpPlace", "counted_costs"]
