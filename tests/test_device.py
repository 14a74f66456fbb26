import pytest

from manyhead.device import cpu_multiplies_bf16


@pytest.mark.parametrize(
    ("vendor", "flags", "faster"),
    [
        ("AuthenticAMD", {"avx512f", "avx512_bf16"}, True),
        ("GenuineIntel", {"avx512f", "avx512_bf16"}, False),
        ("GenuineIntel", {"avx512_bf16", "amx_bf16"}, True),
        ("GenuineIntel", {"avx512f"}, False),
        ("", set(), False),
    ],
)
def test_bf16_is_for_processors_that_multiply_it_faster(vendor: str, flags: set[str], faster: bool) -> None:
    assert cpu_multiplies_bf16(vendor, flags) is faster
