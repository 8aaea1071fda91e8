"""This package as a wheel, made of the files that run: equal files give equal bytes."""

import base64
import hashlib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import recsys

_NAME = "recsys-engine"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can name."""
_WHEEL = "Wheel-Version: 1.0\nGenerator: recsys\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(folder: Path) -> Path:
    """Write the wheel of the running version into `folder` and return its path.

    It holds the code that is imported, so that it installs where no index has the package: also
    from a checkout with changes, under the version that the package was installed as.
    """
    installed = distribution(_NAME)
    stem = f"{_NAME.replace('-', '_')}-{installed.version}"
    about = f"{stem}.dist-info"
    files = {f"{about}/WHEEL": _WHEEL.encode()}
    # A checkout that was installed in place may be found by what its build left, first.
    facts = {"METADATA": installed.read_text("METADATA") or installed.read_text("PKG-INFO")}
    facts |= {name: installed.read_text(name) for name in ("entry_points.txt", "licenses/LICENSE")}
    for name, text in facts.items():
        if text is not None:
            files[f"{about}/{name}"] = text.encode()
    root = Path(recsys.__file__).parent
    for path in _sources(root):
        files[f"recsys/{path.relative_to(root).as_posix()}"] = path.read_bytes()
    record = f"{about}/RECORD"
    lines = [f"{name},sha256={_digest(files[name])},{len(files[name])}" for name in sorted(files)]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in sorted(files, key=lambda name: (name.startswith(about), name)):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    return wheel


def _sources(root: Path) -> list[Path]:
    """Return the files of the package, in no certain order; what Python compiled is left out."""
    found: list[Path] = []
    for path in root.iterdir():
        if path.is_dir():
            found += [] if path.name == "__pycache__" else _sources(path)
        elif not path.name.startswith(".") and path.suffix != ".pyc":
            found.append(path)
    return found


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
