"""Settings of the machine that decide more about speed than the model does, each with a switch."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import nullcontext
from typing import Any

from recsys.core.errors import ConfigError
from recsys.core.imports import on_first_use

with on_first_use():
    import torch

_KEPT_KERNELS = 64
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks instead of returning them at every step.

    Without it each step pays page faults for its activations again. `RECSYS_MALLOC=0` leaves
    the allocator alone. Returns whether the settings were made.

    oneDNN, on the other hand, keeps a kernel for each shape that it met, a thousand of them:
    batches of sessions have another shape at every step, and their kernels come to gigabytes.
    It keeps a few here, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY says otherwise.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KEPT_KERNELS))
    if os.environ.get("RECSYS_MALLOC") == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 << 20}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def peak_memory_mib() -> int:
    """Return the largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 if sys.platform.startswith("linux") else 1 << 20)  # macOS counts bytes


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is the first GPU, else the CPU.

    Raises:
        ConfigError: there is no such device, or this build of torch cannot use it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"training.device: '{name}' cannot be used here: {reason}") from None
    return device


def check_device(name: str) -> None:
    """Refuse a device that is not there; `auto` and `cpu` always are, and cost no look.

    Raises:
        ConfigError: there is no such device, or this build of torch cannot use it.
    """
    if name not in ("auto", "cpu"):
        pick_device(name)


def seed_generators(seed: int) -> None:
    """Seed torch's generators, those of the CPU and of the GPUs in use, as every step does.

    `torch.manual_seed` also notes the call stack once for each kind of device that is not in use,
    which takes longer than some steps do.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


def autocast(precision: str, device: torch.device) -> Any:
    """Return the context that a forward pass runs in: bfloat16 products, or nothing."""
    if precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
