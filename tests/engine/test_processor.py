"""Processors by what the system says of them."""

from __future__ import annotations

import pytest

from engine.runtime.processor import parse_cpuinfo, parse_sysctl


@pytest.mark.parametrize(
    ("text", "name", "bf16"),
    [
        (
            "vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 17\nmodel name : AMD EPYC 9654 96-Core Processor\n"
            "flags : avx2 avx512f avx512_bf16",
            "AMD EPYC 9654 (Zen 4, AVX512-BF16)",
            True,
        ),
        (
            "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 143\nmodel name : Intel(R) Xeon(R) CPU @ 2.10GHz\n"
            "flags : avx2 avx512f avx512_bf16 amx_bf16 amx_tile",
            "Intel Xeon (Sapphire Rapids, AMX-BF16)",
            True,
        ),
        (
            "vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 1\nmodel name : AMD EPYC 7763\nflags : avx2",
            "AMD EPYC 7763 (Zen 3, AVX2)",
            False,
        ),
        ("model name : Neoverse\nFeatures : fp asimd bf16 i8mm", "Neoverse (BF16)", True),
    ],
)
def test_processors_are_told_apart(text, name, bf16):
    processor = parse_cpuinfo(text)
    assert (processor.name, processor.computes_bf16) == (name, bf16)


def test_macs_are_read_from_sysctl():
    text = "machdep.cpu.brand_string: Apple M2\nhw.optional.neon: 1\nhw.optional.arm.FEAT_BF16: 1\n"
    processor = parse_sysctl(text)
    assert (processor.name, processor.computes_bf16) == ("Apple M2 (BF16)", True)
