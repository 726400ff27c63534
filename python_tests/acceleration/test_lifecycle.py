"""What people do with a model keeps working once it is accelerated."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from acceleration import conventions as user
from torch import Tensor, nn
from torch.func import functional_call

from ddarts_ext import accelerate, restore
from ddarts_ext.acceleration import Report

C = user.C


@pytest.fixture(scope="module")
def _pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    before = user.Cell().double()
    accelerated = copy.deepcopy(before)
    assert accelerate(accelerated, strict=True, least_gain=0)
    return before, accelerated


@pytest.fixture
def pair(_pair: tuple[nn.Module, nn.Module]) -> tuple[nn.Module, nn.Module]:
    """A cell and the same cell accelerated."""
    before, accelerated = _pair
    return copy.deepcopy(before), copy.deepcopy(accelerated)


def arguments(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    shapes = (4, 2 * C, 8, 6), (4, 3 * C, 8, 6), (5, 6)
    return [torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def assert_equal(ours: nn.Module, theirs: nn.Module) -> None:
    """Outputs, gradients and the statistics left behind."""
    found = []
    for module in (ours, theirs):
        out = module(*arguments())
        gradients = torch.autograd.grad(out.sin().sum(), list(module.parameters()))
        found.append([out, *gradients, *(buffer.double() for buffer in module.buffers())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def routed(module: nn.Module) -> bool:
    return any("_ddarts_acceleration" in inner.__dict__ for inner in module.modules())


def test_copies_are_accelerated_and_independent(pair: tuple[nn.Module, nn.Module]) -> None:
    before, accelerated = pair
    accelerated(*arguments())
    before(*arguments())
    made = copy.deepcopy(accelerated)
    assert routed(made)
    with torch.no_grad():
        for original, of_before in zip(accelerated.parameters(), before.parameters(), strict=True):
            original.zero_()
            of_before.mul_(2)
    made.load_state_dict(before.state_dict())
    assert_equal(made, before)


def test_pickles(pair: tuple[nn.Module, nn.Module]) -> None:
    before, accelerated = pair
    loaded = pickle.loads(pickle.dumps(accelerated))
    assert routed(loaded)
    assert_equal(loaded, before)
    file = io.BytesIO()
    torch.save(accelerated, file)
    file.seek(0)
    assert_equal(torch.load(file, weights_only=False), user_trained(before))


def user_trained(before: nn.Module) -> nn.Module:
    """The statistics as they were before the first comparison."""
    fresh = copy.deepcopy(before)
    for module in fresh.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    return fresh


def test_state_dicts_load_both_ways(pair: tuple[nn.Module, nn.Module]) -> None:
    before, accelerated = pair
    assert list(before.state_dict()) == list(accelerated.state_dict())
    assert [n for n, _ in before.named_modules()] == [n for n, _ in accelerated.named_modules()]
    assert repr(before) == repr(accelerated)
    with torch.no_grad():
        for parameter in accelerated.parameters():
            parameter.add_(0.1)
    before.load_state_dict(accelerated.state_dict())
    assert_equal(accelerated, before)
    accelerated.load_state_dict(before.state_dict())
    assert_equal(accelerated, before)


def test_the_fresh_model_of_an_unrolled_step_is_accelerated() -> None:
    class Searched(user.Network):
        def new(self) -> nn.Module:
            """As ``docs/drop-in.md`` says: a copy instead of a network that nothing has accelerated."""
            return copy.deepcopy(self)

    torch.manual_seed(0)
    before = Searched().double()
    accelerated = copy.deepcopy(before)
    assert accelerate(accelerated, torch.randn(2, 3, 8, 8, dtype=torch.float64), least_gain=0)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    found = []
    for module in (before, accelerated):
        weights = [p for p in module.parameters() if p is not module.alphas]
        gradients = torch.autograd.grad(module(x).square().sum(), weights, create_graph=True)
        fresh = module.new()
        of_fresh = [p for p in fresh.parameters() if p is not fresh.alphas]
        with torch.no_grad():
            for weight, gradient in zip(of_fresh, gradients, strict=True):
                weight.sub_(0.01 * gradient)
        loss = fresh(x[:2]).square().sum()
        direct = torch.autograd.grad(loss, [fresh.alphas, *of_fresh])
        products = [(a * b).sum() for a, b in zip(gradients, direct[1:], strict=True)]
        implicit = torch.autograd.grad(torch.stack(products).sum(), module.alphas)
        found.append([loss, direct[0], *implicit])
        assert routed(fresh) == routed(module)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_weights_given_from_outside(pair: tuple[nn.Module, nn.Module]) -> None:
    results = []
    for module in pair:
        weights = {name: (p.detach() * 1.5).requires_grad_() for name, p in module.named_parameters()}
        out = functional_call(module, weights, tuple(arguments()))
        results.append([out, *torch.autograd.grad(out.square().sum(), list(weights.values()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("where", ["_ops.0", "_ops.1._ops.4", "_ops.1._ops.4.op.1", "_ops", "preprocess1", ""])
def test_hooks_see_what_they_saw(pair: tuple[nn.Module, nn.Module], where: str) -> None:
    seen: list[list[Tensor]] = [[], []]
    for module, found in zip(pair, seen, strict=True):
        target = module.get_submodule(where)
        target.register_forward_pre_hook(lambda _, args, found=found: found.append(args[0]))
        target.register_forward_hook(lambda _, args, out, found=found: found.append(out))
        target.register_full_backward_hook(lambda _, gin, gout, found=found: found.append(gout[0]))
        module(*(x.requires_grad_() for x in arguments())).square().sum().backward()
    assert len(seen[0]) == len(seen[1]) == (0 if where == "_ops" else 3)
    for a, b in zip(*seen, strict=True):
        assert type(b) is type(a)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert_equal(*pair)


@pytest.mark.parametrize("momentum", [0.0, 0.3, None])
def test_statistics_follow_torch(pair: tuple[nn.Module, nn.Module], momentum: float | None) -> None:
    for module in pair:
        for inner in module.modules():
            if isinstance(inner, nn.BatchNorm2d):
                inner.momentum = momentum
    for _ in range(3):
        assert_equal(*pair)


def test_frozen_norms(pair: tuple[nn.Module, nn.Module]) -> None:
    for module in pair:
        norms = [inner for inner in module.modules() if isinstance(inner, nn.BatchNorm2d)]
        for norm in norms[::2]:
            norm.eval()
        norms[1].eps = 1e-2
    assert_equal(*pair)


def test_layers_exchanged_later(pair: tuple[nn.Module, nn.Module]) -> None:
    before, accelerated = pair
    accelerated(*arguments())
    before(*arguments())
    for module in pair:
        module._ops[0]._ops[4].op[3] = nn.Tanh()
        module._ops[1]._ops = nn.ModuleList(list(module._ops[1]._ops)[:3])
    assert_equal(accelerated, before)


def test_replicas_and_wrappers(pair: tuple[nn.Module, nn.Module]) -> None:
    before, accelerated = pair
    assert_equal(nn.DataParallel(accelerated), nn.DataParallel(before))
    replica = accelerated._replicate_for_data_parallel()
    assert routed(replica)
    for name in ("_modules", "_parameters", "_buffers"):
        replica.__dict__[name] = dict(getattr(copy.deepcopy(accelerated), name))
    accelerated(*arguments())
    with torch.no_grad():
        for parameter in replica.parameters():
            parameter.mul_(3)
    expected = copy.deepcopy(before)
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.mul_(3)
    torch.testing.assert_close(replica(*arguments()), expected(*arguments()))


def test_autocast_gives_the_same_dtypes(pair: tuple[nn.Module, nn.Module]) -> None:
    outputs = []
    for module in pair:
        module.float()
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(module(*arguments(torch.float32)))
    assert outputs[0].dtype == outputs[1].dtype
    assert (outputs[0].double() - outputs[1].double()).abs().mean() < 2e-2 * outputs[0].double().abs().mean()


def test_without_gradients_and_in_a_checkpoint(pair: tuple[nn.Module, nn.Module]) -> None:
    before, accelerated = pair
    with torch.no_grad():
        torch.testing.assert_close(accelerated.eval()(*arguments()), before.eval()(*arguments()))
    inputs = [x.requires_grad_() for x in arguments()]
    out = torch.utils.checkpoint.checkpoint(accelerated, *inputs, use_reentrant=False)
    expected = torch.autograd.grad(before(*inputs).sum(), inputs)
    for a, b in zip(torch.autograd.grad(out.sum(), inputs), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_is_disturbed() -> None:
    module = user.Cell()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    calls: list[object] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    module._ops[0].register_forward_hook(lambda *_: calls.append(1))
    accelerate(module, least_gain=0)
    assert not calls
    assert module.training
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), module.state_dict().values(), strict=True))
    assert all(bool((p.grad == 1).all()) for p in module.parameters() if p.grad is not None)


class BareOps(nn.Module):
    """A mixed op whose ops are torch's own layers, not sequences of them."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = nn.ModuleList([nn.Identity(), nn.MaxPool2d(3, 1, 1), nn.Sequential(nn.ReLU(), nn.Conv2d(C, C, 1))])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(weights, self.ops, strict=True))  # type: ignore[return-value]


def test_single_layers_are_taken_as_ops() -> None:
    module = BareOps().double()
    x, weights = torch.rand(2, C, 6, 6, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    expected = module(x, weights)
    assert accelerate(module, strict=True, least_gain=0)
    asked: list[object] = []
    for op in module.ops:
        op.forward = lambda *inputs, ran=op.forward: asked.append(1) or ran(*inputs)  # type: ignore[assignment]
    torch.testing.assert_close(module(x, weights), expected)
    assert not asked, "an op ran by itself"


def test_twice_and_back() -> None:
    module = user.MixedOp()
    assert accelerate(module, least_gain=0)
    again = accelerate(module, least_gain=0)
    assert not again.replaced
    assert restore(module) is module
    assert not routed(module)
    assert all(type(inner).__dict__.get("_ddarts_base") is None for inner in module.modules())


@pytest.mark.parametrize("model", [nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Linear(2, 2)])
def test_nothing_to_replace(model: nn.Module) -> None:
    report = accelerate(model)
    assert not report
    assert report == Report()
    assert "nothing to replace" in str(report)
    with pytest.raises(ValueError, match="accelerate: model must be replaceable"):
        accelerate(model, strict=True)


def test_a_lookalike_stays() -> None:
    module = user.Lookalike()
    report = accelerate(module, least_gain=0)
    assert not report.replaced
    assert not routed(module)
    assert "no weighted sum" in str(report)
    both = nn.ModuleList([user.MixedOp(), user.Lookalike()])
    with pytest.raises(ValueError, match="no weighted sum"):
        accelerate(both, strict=True, least_gain=0)
    assert not routed(both)


def test_an_op_that_differs_stays_and_the_report_says_by_how_much() -> None:
    report = accelerate(user.MixedOp(extra=[user.Louder(C, 3, 1), user.Scaled(C)]), least_gain=0)
    assert [entry.path for entry in report.raw] == ["_ops.6 (Louder)", "_ops.7 (Scaled)"]
    assert report.raw[0].difference == pytest.approx(1 / 3, rel=0.2)


def test_what_is_no_module() -> None:
    with pytest.raises(TypeError, match=r"accelerate: model must be a torch.nn.Module, got int"):
        accelerate(3)  # type: ignore[arg-type]
