"""Stop the build of a checkout without symbolic links, which would be an empty package.

Everything else about the package stands in pyproject.toml.
"""

import sys
from pathlib import Path

from setuptools import setup

for name in ("video", "models"):
    if not (Path(__file__).resolve().parent / "mmkv" / name).is_dir():
        sys.exit(
            f"error: mmkv/{name} is not a folder, because this checkout has no symbolic links; "
            "clone again with `git clone -c core.symlinks=true` (on Windows inside WSL2), "
            "or install a release: pip install mmkv-video"
        )

setup()
