"""Which processor is this, and what does it compute: read from the system, never guessed from a library's choices."""

from __future__ import annotations

import platform
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BF16_FEATURES = ("amx_bf16", "avx512_bf16", "bf16")
"""Flags of processors that multiply bf16 in hardware: Intel AMX, AVX-512 BF16, and Arm's BF16 (`bf16`)."""

_SHOWN = (  # the first one present stands behind the name
    ("amx_bf16", "AMX-BF16"),
    ("avx512_bf16", "AVX512-BF16"),
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
    ("bf16", "BF16"),
    ("asimd", "NEON"),
)


@dataclass(frozen=True)
class Processor:
    """A processor and its instruction-set flags, in Linux' spelling.

    Attributes:
        brand: as the maker writes it, such as "AMD EPYC".
        architecture: the core's name where known, such as "Zen 4".
        features: flags such as "avx2" or "amx_bf16"; empty where the system does not tell.
    """

    brand: str
    architecture: str | None
    features: frozenset[str]

    @property
    def name(self) -> str:
        """In words, such as "AMD EPYC (Zen 4, AVX512-BF16)"."""
        feature = next((shown for flag, shown in _SHOWN if flag in self.features), None)
        details = ", ".join(part for part in (self.architecture, feature) if part)
        return f"{self.brand} ({details})" if details else self.brand

    @property
    def computes_bf16(self) -> bool:
        """Whether bf16 is multiplied in hardware. Elsewhere it is emulated, up to 100 times slower than fp32."""
        return any(flag in self.features for flag in BF16_FEATURES)


@cache
def detect() -> Processor:
    """The processor this process runs on."""
    if platform.system() == "Linux":
        return parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    if platform.system() == "Darwin":
        return parse_sysctl(_sysctl())
    brand = platform.processor() or platform.machine() or "unknown processor"
    return Processor(_tidy(brand), None, frozenset())


def parse_cpuinfo(text: str) -> Processor:
    """The first processor of a Linux `/proc/cpuinfo`."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = frozenset((fields.get("flags") or fields.get("Features") or "").split())
    brand = fields.get("model name") or platform.machine() or "unknown processor"
    architecture = None
    if fields.get("cpu family", "").isdigit() and fields.get("model", "").isdigit():
        architecture = _architecture(fields.get("vendor_id", ""), int(fields["cpu family"]), int(fields["model"]))
    return Processor(_tidy(brand), architecture, flags)


def parse_sysctl(text: str) -> Processor:
    """A Mac's processor from the output of `sysctl machdep.cpu.brand_string hw.optional`."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    flags = {"asimd"} if fields.get("hw.optional.neon") == "1" else set()
    if fields.get("hw.optional.arm.FEAT_BF16") == "1":
        flags.add("bf16")
    if fields.get("hw.optional.avx2_0") == "1":
        flags.add("avx2")
    return Processor(_tidy(fields.get("machdep.cpu.brand_string", "Apple processor")), None, frozenset(flags))


def _sysctl() -> str:
    command = ["sysctl", "machdep.cpu.brand_string", "hw.optional"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _tidy(brand: str) -> str:
    """Without trademark signs, core counts and clock rates, which say nothing about what it computes."""
    brand = re.sub(r"\((R|TM)\)|\bCPU\b|\bProcessor\b|\b\d+-Core\b|@.*$", " ", brand, flags=re.IGNORECASE)
    return " ".join(brand.split())


def _architecture(vendor: str, family: int, model: int) -> str | None:
    """Name of the core from CPUID family and model (the makers' published lists; servers and desktops)."""
    if vendor == "AuthenticAMD":
        if family == 0x17:
            return "Zen 2" if model >= 0x30 else "Zen"
        if family == 0x19:
            zen4 = 0x10 <= model <= 0x1F or 0x60 <= model <= 0x7F or 0xA0 <= model <= 0xAF
            return "Zen 4" if zen4 else "Zen 3"
        return {0x1A: "Zen 5"}.get(family)
    if vendor == "GenuineIntel" and family == 6:
        return {
            0x55: "Skylake-SP",
            0x6A: "Ice Lake-SP",
            0x8F: "Sapphire Rapids",
            0xCF: "Emerald Rapids",
            0xAD: "Granite Rapids",
        }.get(model)
    return None
