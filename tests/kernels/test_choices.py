"""Which way is gone on which processor, and what settings change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.synthesis import PreparedFlow
from flowavenet_plugin.kernels import choices, compiled
from flowavenet_plugin.kernels.convolution import DirectConvolution
from flowavenet_plugin.kernels.products import Matrix
from flowavenet_plugin.kernels.stack_weights import StackWeights
from flowavenet_plugin.kernels.winograd import WinogradConvolution

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
Processor = Callable[[bool], None]


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Processor:
    """Make up a processor with or without matrix units."""
    for name in (choices.FUSED, choices.MARCH, choices.BFLOAT16, "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    return lambda units: monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units, raising=False)


def test_bfloat16_is_the_libraries_business_where_they_have_matrix_units(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for units in (False, True):
        processor(units)
        assert choices.wants_compiled_products(F32)
        for setting, ours in (("", not units), ("auto", not units), ("compiled", True), ("libraries", False)):
            monkeypatch.setenv(choices.BFLOAT16, setting)
            assert choices.wants_compiled_products(BF16) is ours, (units, setting)


@pytest.mark.parametrize(
    ("most", "units"),
    [("", True), ("DEFAULT", True), ("avx512_core_amx", True), ("AVX512_CORE_BF16", False), ("AVX2", False)],
)
def test_units_that_the_libraries_may_not_use_dont_count(
    processor: Processor, monkeypatch: pytest.MonkeyPatch, most: str, units: bool
) -> None:
    processor(True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    assert choices.libraries_have_matrix_units() is units


def test_a_torch_that_doesnt_know_of_matrix_units_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    for line, units in (("flags\t: sse2 amx_bf16", True), ("flags\t: sse2", False), ("bugs: amx_bf16", False)):
        monkeypatch.setattr(Path, "read_text", lambda path, line=line: f"processor: 0\n{line}\n")
        assert choices.libraries_have_matrix_units() is units

    def unreadable(path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert not choices.libraries_have_matrix_units()


@pytest.mark.parametrize("name", [choices.FUSED, choices.BFLOAT16])
def test_unknown_settings_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "yes")
    with pytest.raises(ValueError, match=f"{name}=yes.*1, 0|{name}=yes.*auto, compiled, libraries"):
        choices.wants_compiled()
        choices.wants_compiled_products(F32)


def prepared_stack(dtype: torch.dtype, filter_size: int = 8) -> StackWeights:
    flow = FloWaveNet(n_mels=4, n_block=1, n_flow=1, filter_size=filter_size, upsample_scales=(2, 4)).eval()
    return PreparedFlow(flow, dtype).blocks[0].steps[0].stack.weights


@pytest.mark.parametrize("units", [False, True])
def test_what_a_prepared_flow_is_made_of(units: bool, processor: Processor, instructions: str) -> None:
    processor(units)
    kinds = {
        F32: (WinogradConvolution, True),
        BF16: (DirectConvolution, False) if units else (WinogradConvolution, True),
        F16: (DirectConvolution, False),
    }
    for dtype, (kind, in_order) in kinds.items():
        stack = prepared_stack(dtype)
        assert {type(convolution) for convolution in stack.dilated} == {kind}
        assert (stack.times("skip").panels is not None) == in_order
    assert type(prepared_stack(BF16, filter_size=7).dilated[0]) is DirectConvolution  # pairs of an odd width


def test_half_precision_takes_the_more_exact_form_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choices.FUSED, "0")
    compiled.functions.cache_clear()
    kinds = {dtype: type(prepared_stack(dtype).dilated[0]) for dtype in (F32, BF16, F16)}
    assert kinds == {F32: WinogradConvolution, BF16: DirectConvolution, F16: DirectConvolution}
    assert Matrix(torch.zeros(4, 3)).panels is None
    monkeypatch.undo()
    compiled.functions.cache_clear()


def test_which_matrices_are_put_in_order(processor: Processor, instructions: str) -> None:
    for units in (False, True):
        processor(units)
        assert Matrix(torch.zeros(3, 4, dtype=torch.float64)).panels is None
        assert Matrix(torch.zeros(3, 4, dtype=BF16)).panels is None  # no pairs
        assert Matrix(torch.zeros(4, 3), in_order=False).panels is None
        assert (Matrix(torch.zeros(4, 3, dtype=BF16)).panels is None) == units
        assert Matrix(torch.zeros(4, 3)).weight is None


def test_a_matrix_is_for_the_functions_that_it_was_put_in_order_for(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = Matrix(torch.ones(4, 3))
    monkeypatch.setattr("flowavenet_plugin.kernels.products.constant", lambda name: 4 * compiled.constant(name))
    with pytest.raises(ValueError, match="another processor"):
        matrix.multiply(torch.ones(2, 4), torch.empty(2, 3))
