"""What can go wrong with a store."""

from __future__ import annotations


class StoreError(OSError):
    """A store cannot be opened, read or written; the message says why and what to do."""


class StoreMismatchError(StoreError):
    """A store was made by another model, codec or version."""


class DamageError(StoreError):
    """Bytes of a store are not those that were written."""


class ForeignFileError(DamageError):
    """A file in a store's folder is another store's."""
