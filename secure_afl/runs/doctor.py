"""Whether this machine can run a federation, and how well."""

import importlib.metadata
import os
import platform
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols.schemes.additive.protocol import Additive
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import DataError
from secure_afl.features.backbone import parse_backbone
from secure_afl.features.cache import FeatureCache, default_path
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL

# Without AES instructions a core encrypts about 0.2 GB/s, with them 2 or more.
_SLOW_AES = 0.8


class Check(NamedTuple):
    """One line of the diagnosis."""

    name: str
    found: str
    good: bool = True


def checks() -> list[Check]:
    """Run every check; none needs the network."""
    return [
        Check("python", platform.python_version(), sys.version_info >= (3, 11)),
        *(Check(name, importlib.metadata.version(name)) for name in ("numpy", "cryptography")),
        Check("openssl", backend.openssl_version_text()),
        _aes(),
        Check("cores", str(os.cpu_count())),
        *_vision(),
        _cache(),
        _federation(),
    ]


def backbone(spec: str, checkpoint: str | None, image_size: int | None) -> Check:
    """Load a backbone, and its checkpoint if named.

    Raises:
        ConfigError: a spec or setting that cannot be.
        DataError: weights that cannot be loaded.
    """
    path = Path(checkpoint) if checkpoint else None
    loaded = parse_backbone(spec, path, image_size)
    return Check("backbone", f"{loaded.name} loads, digest {loaded.digest.hex()[:16]}")


def _aes() -> Check:
    data = bytes(16 << 20)
    encryptor = Cipher(algorithms.AES(bytes(16)), modes.CTR(bytes(16))).encryptor()
    buffer = bytearray(len(data) + 15)
    encryptor.update_into(data, buffer)
    begin = time.perf_counter()
    encryptor.update_into(data, buffer)
    rate = len(data) / (time.perf_counter() - begin) / 1e9
    slow = "" if rate > _SLOW_AES else ": no AES instructions? masks and seals will be slow"
    return Check("AES-128-CTR", f"{rate:.1f} GB/s a core{slow}")


def _vision() -> list[Check]:
    if find_spec("timm") is None:
        return [Check("timm", "not installed: image backbones need secure-afl[vision]")]
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; backbones use CPU"
    versions = [Check(name, importlib.metadata.version(name)) for name in ("torch", "timm")]
    return [*versions, Check("GPU", gpu)]


def _cache() -> Check:
    path = default_path()
    try:
        FeatureCache(path)
    except DataError as error:
        return Check("feature cache", str(error), False)
    size = f"{path.stat().st_size / 1e6:.1f} MB" if path.exists() else "empty"
    return Check("feature cache", f"{path}, {size}")


def _federation() -> Check:
    rng = np.random.default_rng(0)
    clients = [
        ClientData(name, rng.standard_normal((20, 8)), rng.integers(0, 2, 20))
        for name in ("a", "b", "c")
    ]
    exact = Federation(AFL(), Additive()).run(clients).report.exact
    return Check("test federation", "exact" if exact else "NOT EXACT", exact)
