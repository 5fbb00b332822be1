"""A stream on disk.

A folder with `meta.json`, a `lock`, and segments: `000000.data` and its `000000.index`, and so on.
Pages are only ever appended, data before index. After a process is killed (SIGKILL, out of memory),
what it had written is still there: every page that `flush` or `close` reported, and as a rule all
but the last few. After a power cut, at least every page that `flush` or `close` reported is there:
both return after an fdatasync of the data, then of the index; otherwise one is done every 64 MB or
5 s. Incomplete or damaged data is detected by its checksum, and never served.
"""

from mmkv.store.errors import DamageError, StoreError, StoreMismatchError
from mmkv.store.store import Store, remove

__all__ = ["DamageError", "Store", "StoreError", "StoreMismatchError", "remove"]
