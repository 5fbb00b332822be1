"""Defaults of `CacheConfig` that are told without making one, which would import torch."""

MAX_RAM = "8GB"
PAGE_SECONDS = 60.0
