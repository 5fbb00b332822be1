"""What the tests share: the same wherever, whenever and by whomever they are run.

The environment of whoever runs them reaches neither them nor what they start. Random numbers are
the same in whatever order they are run. Hypothesis tries the same examples every time, however
long they take; others with `--hypothesis-profile=explore`.
"""

import os
import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

pytest_plugins = ["real_tokenizer"]

for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):  # cameras are on this machine
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)
for name in ("MMKV_MODEL", "MMKV_DEMO_AUTH"):
    os.environ.pop(name, None)

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes that share the cores
    torch.set_num_threads(1)

settings.register_profile(
    "explore", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("same", settings.get_profile("explore"), derandomize=True, database=None)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
