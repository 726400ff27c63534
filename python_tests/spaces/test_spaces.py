"""Search spaces: the order of edges and ops, and how many architectures they hold."""

import pytest

from ddarts_ext import spaces


def test_darts_edges_are_ordered_by_target_then_source() -> None:
    space = spaces.get("darts")
    assert len(space.edges) == 14
    assert [tuple(edge) for edge in space.edges[:5]] == [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    for index, (source, target) in enumerate(space.edges):
        assert space.edge_index(target, source) == index
        assert index == sum(range(2, target)) + source
        assert index in space.incoming(target)
        assert index in space.leaving(source)
    assert space.incoming(5) == (9, 10, 11, 12, 13)
    assert space.leaving(1) == (1, 3, 6, 10)
    assert space.leaving(5) == ()
    assert space.concat == (2, 3, 4, 5)


def test_nasbench201_edges() -> None:
    space = spaces.get("nasbench201")
    assert [(target, source) for source, target in space.edges] == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    assert space.concat == (3,)
    assert space.reductions(17) == ()
    assert space.size() == 15625


def test_op_orders() -> None:
    assert spaces.get("darts_none").ops == ("none", *spaces.get("darts").ops)
    assert spaces.get("darts_none").choices == tuple(range(1, 8))
    assert spaces.get("dartopti").ops.index("bottleneck_1x3x1") == 11
    isdarts = spaces.get("isdarts")
    assert isdarts.ops[2:4] == ("dua_sepc_3x3", "dua_sepc_5x5")
    assert isdarts.genotype_ops[2:4] == ("sep_conv_3x3", "sep_conv_5x5")
    assert isdarts.op_index("dua_sepc_3x3") == isdarts.op_index("sep_conv_3x3") == 2


def test_published_sizes() -> None:
    # D-DARTS, Eq. 6; DARTS has two cells; the 8-op space counts `none` as no choice.
    darts = spaces.get("darts")
    assert darts.size() == 1_037_664_180
    assert darts.size(8) == 1344171248590944486034044170230799178212581907194889134907727897600000000
    assert spaces.get("darts_none").size(2) == 1_037_664_180**2
    assert spaces.get("dartopti").size() == 77_396_705_280
    # Any two of the (edge, op) pairs of a node: 14, 21, 28, 35 of them.
    assert spaces.get("isdarts").size() == 91 * 210 * 378 * 595


@pytest.mark.parametrize(("layers", "reductions"), [(8, (2, 5)), (14, (4, 9)), (20, (6, 13)), (4, (1, 2)), (1, (0,))])
def test_reductions_at_thirds(layers: int, reductions: tuple[int, ...]) -> None:
    assert spaces.get("darts").reductions(layers) == reductions


def test_stride_two_leaves_the_inputs_of_a_reduction_cell_only() -> None:
    space = spaces.get("darts")
    strides = [space.stride(edge, reduction=True) for edge in space.edges]
    assert strides == [2, 2, 2, 2, 1, 2, 2, 1, 1, 2, 2, 1, 1, 1]
    assert {space.stride(edge, reduction=False) for edge in space.edges} == {1}


def test_steps_and_multiplier_can_be_chosen() -> None:
    resnet50 = spaces.get("dartopti", steps=6)
    assert len(resnet50.edges) == 27
    assert resnet50.concat == (4, 5, 6, 7)
    assert spaces.get("darts", steps=2).concat == (2, 3)
    assert spaces.get("darts", steps=3, multiplier=1).concat == (4,)


def test_table_marks_the_ops_of_a_cell() -> None:
    space = spaces.get("darts")
    table = space.table([("sep_conv_3x3", 3, 2), ("skip_connect", 3, 2)])
    assert table.sum() == 2
    assert table[4].tolist() == [False, False, True, True, False, False, False]


def test_errors_name_the_argument() -> None:
    space = spaces.get("darts")
    with pytest.raises(ValueError, match=r"name must be one of darts, .*, got 'cnn'"):
        spaces.get("cnn")
    with pytest.raises(ValueError, match=r"multiplier must be in 1..steps=2, got 3"):
        spaces.get("darts", steps=2, multiplier=3)
    with pytest.raises(ValueError, match=r"target must be a node in 2..5, got 6"):
        space.edge_index(6, 0)
    with pytest.raises(ValueError, match=r"source must be in 0..2 for target 3, got 3"):
        space.edge_index(3, 3)
    with pytest.raises(ValueError, match=r"op must be one of .*, got 'none'"):
        space.op_index("none")
    with pytest.raises(ValueError, match="layers must be >= 1, got 0"):
        space.reductions(0)
