"""The precisions of training, and whether this processor is fast in them."""

from pathlib import Path
from typing import Literal, get_args

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
PRECISIONS = get_args(Precision)

# AVX-512's dot products of bfloat16 pairs, and Intel's matrix tiles: oneDNN has kernels for both.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


def cpu_multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has instructions for bfloat16 products. Others emulate them, which is slow."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:  # not Linux
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return not _BFLOAT16_FLAGS.isdisjoint(flags)
