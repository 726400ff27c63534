"""A step of all parameters at once is the step of SGD, wherever they lie and whatever the state came from."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ddarts_ext import spaces
from ddarts_ext.nn import Supernet, joined
from ddarts_ext.nn.joined import JoinedSGD
from ddarts_ext.nn.layout import lay_out
from ddarts_ext.runs.optimizers import capturable, rates_as_tensors, set_rate, state_of, take_up
from ddarts_ext.search.state import forget

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"momentum": 0.9, "weight_decay": 3e-4},
    "nesterov": {"momentum": 0.9, "weight_decay": 1e-2, "nesterov": True},
    "without momentum": {"weight_decay": 1e-2},
}


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU as well."""
    monkeypatch.setattr(joined, "_counts_launches", lambda x: True)


def network(*, laid: bool, name: str = "isdarts") -> Supernet:
    """A supernet with a library's convolution, affine norms, odd sizes, and idle biases."""
    torch.manual_seed(0)
    net = Supernet(spaces.get(name), 1, 2, 3).double()
    if laid:
        lay_out(net)
    return net


def gradients(parameters: list[nn.Parameter], seed: int, *, missing: bool) -> list[Tensor | None]:
    """Random ones; with ``missing`` every fifth parameter has none."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor | None] = []
    for i, parameter in enumerate(parameters):
        drawn = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        found.append(None if missing and i % 5 == seed % 5 else drawn)
    return found


def step_of_sgd(optimizer: torch.optim.SGD, found: list[Tensor | None], clip: float) -> Tensor | None:
    parameters = optimizer.param_groups[0]["params"]
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.grad = None if gradient is None else torch.empty_like(parameter).copy_(gradient)
    norm = nn.utils.clip_grad_norm_(parameters, clip) if clip else None
    optimizer.step()
    return norm


def assert_same(ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer) -> None:
    for one, other in zip(ours.param_groups[0]["params"], theirs.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
        assert ours.state[one].keys() == theirs.state[other].keys()
        for name, value in ours.state[one].items():
            assert (value is None) is (theirs.state[other][name] is None)
            if value is not None:
                torch.testing.assert_close(value, theirs.state[other][name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("settings", "clip"), [("plain", 0.5), ("plain", 1e6), ("nesterov", 0.0), ("without momentum", 0.5)]
)
@pytest.mark.parametrize("laid", [True, False], ids=["laid out", "anyhow"])
@pytest.mark.parametrize("missing", [False, True], ids=["all", "some"])
def test_steps_are_those_of_sgd(settings: str, clip: float, laid: bool, missing: bool) -> None:
    nets = network(laid=laid), network(laid=False)
    ours = JoinedSGD(nets[0].parameters(), lr=0.1, fused=True, **SETTINGS[settings])
    # torch's fused step fails where some parameters have a momentum and others had no gradient yet.
    theirs = torch.optim.SGD(nets[1].parameters(), lr=0.1, fused=False, **SETTINGS[settings])
    assert ours.joins()
    for seed in range(4):
        rate = 0.1 / (seed + 1)
        set_rate(ours, rate)
        set_rate(theirs, rate)
        found = gradients(list(nets[0].parameters()), seed, missing=missing)
        norm, expected = ours.descend(found, clip), step_of_sgd(theirs, found, clip)
        assert (norm is None) is (clip == 0)
        if norm is not None and expected is not None:
            torch.testing.assert_close(norm, expected, rtol=1e-12, atol=0)
        if settings != "without momentum":
            assert_same(ours, theirs)
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_without_any_gradient_all_rests() -> None:
    net = network(laid=True)
    before = [parameter.clone() for parameter in net.parameters()]
    optimizer = JoinedSGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, fused=True)
    assert optimizer.descend([None] * len(before), 1.0) is None
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), before, strict=True))
    assert not optimizer.state_dict()["state"]


@pytest.mark.parametrize("first", ["joined", "sgd"])
def test_checkpoints_load_both_ways(first: str) -> None:
    """A run that began with one goes on with the other, and with either of them alike."""
    make = {"joined": JoinedSGD, "sgd": torch.optim.SGD}

    def go(optimizer: torch.optim.SGD, seed: int) -> None:
        found = gradients(optimizer.param_groups[0]["params"], seed, missing=seed == 0)
        optimizer.descend(found, 1.0) if isinstance(optimizer, JoinedSGD) else step_of_sgd(optimizer, found, 1.0)

    def made(kind: str, net: Supernet) -> torch.optim.SGD:
        return make[kind](net.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-4, fused=kind == "joined")

    start = network(laid=first == "joined")
    begun = made(first, start)
    go(begun, 0)
    go(begun, 1)
    state, weights = copy.deepcopy(state_of(begun)), copy.deepcopy(start.state_dict())
    ended = []
    for kind in make:
        net = network(laid=kind == "joined")
        net.load_state_dict(weights)
        optimizer = made(kind, net)
        go(optimizer, 5)  # what it has before is forgotten
        net.load_state_dict(weights)
        take_up(optimizer, state)
        go(optimizer, 2)
        go(optimizer, 3)
        ended.append(optimizer)
    assert_same(*ended)
    go(begun, 2)
    go(begun, 3)
    assert_same(ended[0], begun)


def test_what_is_left_of_a_shrunk_network_keeps_its_momenta() -> None:
    ended = []
    for kind in (JoinedSGD, torch.optim.SGD):
        net = network(laid=True)
        optimizer = kind(net.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-4, fused=True)
        mask = torch.rand(*net.cells[0].present().shape, generator=torch.Generator().manual_seed(3)) > 0.5
        for seed in range(4):
            if seed == 2:
                for cell in net.cells:
                    cell.prune(mask)
                lay_out(net)
                forget(optimizer, net.parameters())
            found = gradients(optimizer.param_groups[0]["params"], seed, missing=False)
            optimizer.descend(found, 1.0) if isinstance(optimizer, JoinedSGD) else step_of_sgd(optimizer, found, 1.0)
        ended.append(optimizer)
    assert_same(*ended)


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in ("aten::_fused_sgd_", "aten::cat"):
            self.found.append((name, len(args[0])))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("missing", [False, True], ids=["all", "some"])
def test_neighbours_move_as_one(missing: bool) -> None:
    net = network(laid=True)
    optimizer = JoinedSGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
    found = gradients(list(net.parameters()), 0, missing=missing)
    optimizer.descend(found, 1.0)
    with Calls() as calls:
        optimizer.descend(found, 1.0)
    count = sum(gradient is not None for gradient in found)
    (cat, pieces), (moved, runs) = calls.found
    assert (cat, moved) == ("aten::cat", "aten::_fused_sgd_")
    assert pieces <= count
    assert runs == 1 if not missing else 1 < runs < count
    # Gradients that lie as their parameters do are one piece.
    laid = network(laid=True)
    with Calls() as calls:
        optimizer.descend([parameter.detach() for parameter in laid.parameters()], 1.0)
    assert calls.found == [("aten::cat", 1), ("aten::_fused_sgd_", 1)]


def test_a_rate_in_a_tensor_and_graphs() -> None:
    nets = network(laid=True), network(laid=True)
    optimizers = [JoinedSGD(net.parameters(), lr=0.1, momentum=0.9, fused=True) for net in nets]
    assert all(capturable(optimizer) for optimizer in optimizers)
    rates_as_tensors(optimizers[0])
    for seed, rate in enumerate((0.1, 0.01)):
        for optimizer in optimizers:
            set_rate(optimizer, rate)
            optimizer.descend(gradients(optimizer.param_groups[0]["params"], seed, missing=False))
    assert_same(*optimizers)


@pytest.mark.parametrize(
    "what", ["groups", "maximize", "dampening", "not fused", "frozen", "two dtypes", "strided", "a device of few costs"]
)
def test_what_moves_in_another_way_does_not_join(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [nn.Parameter(torch.randn(4, 4)) for _ in range(2)]
    settings: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "fused": True}
    assert JoinedSGD(weights, **settings).joins()
    given: Any = weights
    if what == "groups":
        given = [{"params": [weight]} for weight in weights]
    elif what in ("maximize", "dampening", "not fused"):
        settings |= {"maximize": {"maximize": True}, "dampening": {"dampening": 0.5}, "not fused": {"fused": False}}[
            what
        ]
    elif what == "frozen":
        weights[1].requires_grad_(False)
    elif what == "two dtypes":
        weights[1].data = weights[1].data.double()
    elif what == "strided":
        weights[1].data = torch.randn(4, 8)[:, ::2]
    else:
        monkeypatch.undo()
    assert not JoinedSGD(given, **settings).joins()


def test_all_parameters_of_a_network_that_is_laid_out_fill_one_memory() -> None:
    net = network(laid=True)
    before = [(parameter.data_ptr(), parameter.clone()) for parameter in net.parameters()]
    assert len({parameter.untyped_storage().data_ptr() for parameter in net.parameters()}) == 1
    spans = sorted((p.data_ptr(), p.numel() * p.element_size()) for p in net.parameters())
    assert all(a + size == b for (a, size), (b, _) in itertools.pairwise(spans))
    lay_out(net)  # once more moves nothing
    assert all(
        p.data_ptr() == at and torch.equal(p, old) for p, (at, old) in zip(net.parameters(), before, strict=True)
    )
    for (name, one), (other, two) in zip(net.named_parameters(), network(laid=False).named_parameters(), strict=True):
        assert name == other
        assert torch.equal(one, two)
