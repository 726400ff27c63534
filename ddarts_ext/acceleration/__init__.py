"""Faster kernels under the DARTS code that people already have; see ``docs/drop-in.md``.

``accelerate`` finds mixed ops and cells (``recognise``), reads their ops as layers (``plan``, ``layers``), proves every
replacement on copies (``probe``, ``proof``) and exchanges classes (``classes``). At run time the user's own forward
runs inside a ``scope``, in which ops return sums that are not taken yet (``mixture``). The package has another name
than its main function, which would otherwise hide behind it.
"""

from ddarts_ext.acceleration.adapter import Adapter, register_adapter, unregister_adapter
from ddarts_ext.acceleration.report import Left, Replaced, Report
from ddarts_ext.acceleration.routing import accelerate, restore

__all__ = [
    "Adapter",
    "Left",
    "Replaced",
    "Report",
    "accelerate",
    "register_adapter",
    "restore",
    "unregister_adapter",
]
