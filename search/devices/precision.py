"""The precisions of training, and whether this processor is fast in them."""

import contextlib
from pathlib import Path
from typing import Any, Literal, get_args

from affinity_search.search.devices.packages import backend

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


def exact_products() -> contextlib.AbstractContextManager[Any]:
    """Within it, and in the gradients of what is computed there, products of float32 matrices are those of float32.

    Otherwise a GPU or TPU rounds what it multiplies, to 11 or 8 bits. That is enough for a network and too little for
    distances: ‖a‖² − 2 a·b + ‖b‖² is a small difference of large numbers. TensorFlow has no such scope, so nothing
    changes there.
    """
    if backend() != "jax":
        return contextlib.nullcontext()
    import jax

    scope: contextlib.AbstractContextManager[Any] = jax.default_matmul_precision("highest")
    return scope
