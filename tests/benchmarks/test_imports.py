"""Every benchmark starts: what it imports from the package is there."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import benchmarks

NAMES = [
    module.name
    for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")
    if not module.name.endswith("__main__")  # runs when imported
]


@pytest.mark.parametrize("name", NAMES)
def test_it_imports(name: str) -> None:
    importlib.import_module(name)
