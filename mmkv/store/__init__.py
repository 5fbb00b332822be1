"""A stream on disk.

A folder with `meta.json`, a `lock`, and segments: `000000.data` and its `000000.index`, and so on.
Pages are only ever appended, data before index. What a process that is killed (SIGKILL, out of
memory) had written is there: every page that `flush` or `close` reported, and as a rule all but the
last few. What a power cut leaves is at least every page that `flush` or `close` reported: they
return after fdatasync of data, then of the index; without them this is done every 64 MB or 5 s.
What is not whole is found by its checksum, and never served.
"""

from mmkv.store.errors import DamageError, StoreError, StoreMismatchError
from mmkv.store.store import Store, remove

__all__ = ["DamageError", "Store", "StoreError", "StoreMismatchError", "remove"]
