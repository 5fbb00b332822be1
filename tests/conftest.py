"""What the environment of whoever runs the tests says does not reach them, nor what they start."""

import os

for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):  # cameras are on this machine
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)
for name in ("MMKV_MODEL", "MMKV_DEMO_AUTH"):
    os.environ.pop(name, None)
