"""Takes frames into the window and the archive: paired, encoded, kept.

Not thread-safe: a stream lets in one caller at a time.
"""

from __future__ import annotations

import logging
import time

import numpy as np

from mmkv.archive import Archive, CachedBlock, PageSize
from mmkv.codecs import Codec
from mmkv.config.policies import make_thinning
from mmkv.config.resolved import ResolvedConfig
from mmkv.encode import resume
from mmkv.encode.frame_encoder import FrameEncoder, frame_after
from mmkv.encode.replay import Known, NoStateError, state_after
from mmkv.encode.resume import Frame, StreamHeader
from mmkv.encode.state_log import MemoryLog, StateLog, StoreLog, frames_apart
from mmkv.encode.window import EncodePass, Window
from mmkv.engine.carry import Carry
from mmkv.engine.devices import layer_devices
from mmkv.models.block import Block
from mmkv.models.grid import Grid
from mmkv.store import Store, StoreError
from mmkv.store.retention import Limits
from mmkv.store.write_behind import write_behind

log = logging.getLogger("mmkv.store")

_SMALL = 1 << 28  # bytes of a state up to which that before the newest chunk is kept too


class StreamState:
    """State of one stream's encoding.

    Args:
        frame_encoder: encodes.
        config: sizes and policies.
        codec: how the past is packed.
        store: where it is kept on disk, or None.
    """

    def __init__(
        self,
        frame_encoder: FrameEncoder,
        config: ResolvedConfig,
        codec: Codec,
        store: Store | None = None,
    ) -> None:
        self.frame_encoder = frame_encoder
        self.adapter = adapter = frame_encoder.adapter
        self.store = store
        limits = (config.max_ram, config.max_disk)
        self.archive = Archive(
            codec,
            adapter.shape,
            adapter.dtype,
            config.max_ram,
            PageSize(config.page_tokens, config.page_seconds),
            config.index_bytes,
            on_disk=store is not None,
            devices=layer_devices(adapter),
            thinning=make_thinning(config),
            slab_limit=None if store is None else min(filter(None, limits), default=None),
        )
        if store is not None and store.writer is not None:
            write_behind(self.archive, store.writer)
        self.window: Window | None = None
        self.grid: Grid | None = None
        self.pending: list[Frame] = []
        self._archiving = 0.0  # seconds
        self._config = config
        self._first_seconds = 0.0
        self._opened_for = 0
        self._reported: list[str] = []  # losses of the store
        self._log: StateLog | None = None  # of the state that the window carries, if it does
        self._known: list[Known] = []  # states in memory: of earlier moments, and the window's
        self._uncommitted: EncodePass | None = None
        self._state_lost = False  # whether a store has lost part of the window's state

    @property
    def timings(self) -> dict[str, float]:
        """Seconds spent so far per stage."""
        return {**self.frame_encoder.timings, "archive": self._archiving}

    @property
    def writing(self) -> bool:
        """Whether frames go to a store."""
        return self.store is not None and self.store.writer is not None

    @property
    def reading(self) -> bool:
        """Whether frames come from a store that another stream writes."""
        return self.store is not None and self.store.writer is None

    @property
    def thumbnails(self) -> bool:
        """Whether a small picture is kept of every frame."""
        return self._config.thumbnails

    @property
    def state_bytes(self) -> int:
        """Bytes of the carried state, now and before the newest chunk."""
        return sum(carry.nbytes for _, carry in list(self._known))

    @property
    def snapshot_bytes(self) -> int:
        """Bytes in host memory by which the carried state of earlier moments can be had."""
        kept = self._log  # once: another thread may close the stream
        return 0 if kept is None else kept.nbytes

    @property
    def block_tokens(self) -> int:
        """Tokens per block, text included; 0 before the first frame."""
        return self.archive.last.tokens if self.archive.last else 0

    @property
    def frames(self) -> int:
        """Frames encoded or waiting."""
        return frame_after(self.archive.last) + len(self.pending)

    @property
    def span(self) -> tuple[float, float] | None:
        """Times of the stream's first and newest frame; None before the first."""
        last, pending = self.archive.last, self.pending  # once: other threads read this
        if pending:
            return self._first_seconds, pending[-1][0]
        return None if last is None else (self._first_seconds, last.seconds[1])

    def push(self, frames: list[Frame]) -> None:
        """Encode frames; those that do not fill a block wait.

        If this fails, what was encoded before the failure is in the stream; the rest is not.
        """
        if not self.frames:  # none yet, or encoding the first one failed
            height, width = frames[0][1].shape[:2]
            self.grid = self.adapter.grid(height, width)
            self.window = None
            self._first_seconds = frames[0][0]
        self.repair()
        waiting = self.pending + frames
        ready = len(waiting) - len(waiting) % self.adapter.temporal_patch
        if ready:
            self._encode(self._blocks(waiting[:ready]))
        # copies: the caller may use its buffer again
        self.pending = [(seconds, frame.clone()) for seconds, frame in waiting[ready:]]

    def repair(self) -> None:
        """Commit what an interrupt left archived but not committed."""
        last, window = self.archive.last, self.window
        if last is None or window is None:
            return
        end, chunk = last.start + last.tokens, self._uncommitted
        if window.seen < end and window.carry is not None:
            if chunk is not None and chunk.stop == end:
                window.carry = chunk.carry
            else:  # only some of the chunk's blocks were archived
                window.carry = self._state_after(last)
            assert window.carry is not None
            self._known = [(last.index, window.carry)]
        window.seen = end
        self._drop_encoded(last)

    def flush(self) -> None:
        """Pack what is waiting to be packed; with a store, return when everything is on disk.

        Raises:
            StoreError: the store cannot be written.
        """
        self.archive.flush()
        if self.store is not None:
            resume.write_waiting(self.store, len(self.archive), self.pending)

    def close(self) -> None:
        """Let go of the store, the past and the window; times and counts of frames stay.

        What was not flushed may be lost.
        """
        self.archive.close()
        self.frame_encoder.release()
        if self.store is not None:
            self.store.release()
        self.window = self._log = self._uncommitted = None
        self._known = []

    def catch_up(self) -> None:
        """Take over what the store holds by now: blocks, window, waiting frames.

        Raises:
            StoreError: the store cannot be read.
        """
        store = self.store
        assert store is not None
        self.archive.extend(store, layer_devices(self.adapter))
        header = resume.read_header(store)
        if header is None:
            self.pending = []
            return
        self.grid, self._first_seconds = header.grid, header.first_seconds
        if self.window is None:
            self._open(header.block_tokens)
        assert self.window is not None
        damage = resume.restore_window(self.window, self.archive, header.far_distance)
        lost: list[str] = []
        if self.window.carry is not None and self.archive.last is not None:
            last = self.archive.last
            if [at for at, _ in self._known[-1:]] != [last.index]:
                self.window.carry = self._state_after(last, lost)
                self._known = [(last.index, self.window.carry)]
                self._state_lost = self._state_lost or bool(lost)
        self._report_losses(store, damage, lost)
        # waiting frames are encoded after the window's
        self.pending = resume.read_waiting(store, len(self.archive)) if self.window.gapless else []

    def _report_losses(self, store: Store, damage: StoreError | None, state: list[str]) -> None:
        lost = [f"part of the state that the model carried: {what}" for what in state]
        lost += [str(loss) for loss in store.losses]
        if damage is not None:
            lost.append(f"some of the newest frames: {damage}")
        new = [loss for loss in lost if loss not in self._reported]
        if new:
            log.warning("the store %s has lost %s", store.folder, "; ".join(new))
            self._reported += new

    def start_writing(self, limits: Limits) -> None:
        """From now on, write the store that was read.

        Raises:
            StoreError: it cannot be written, or has lost frames that the next ones would see.
        """
        assert self.store is not None
        if self.window is not None and self.window.gapless and self._state_lost:
            raise StoreError(
                f"the store {self.store.folder} cannot be continued: it has lost "
                f"{self._reported[-1]}; repair it, or open it with mode='r'"
            )
        if self.window is not None and not self.window.gapless:
            raise StoreError(
                f"the store {self.store.folder} cannot be continued: it has lost frames that the "
                f"next ones would see in their window: {self._reported[-1]}; repair it, or open it "
                "with mode='r'"
            )
        write_behind(self.archive, self.store.start_writing(limits))
        if self._log is not None:
            self._log.begin()

    def peek(self) -> tuple[EncodePass, list[CachedBlock]] | None:
        """Encode the waiting frames, padded, without making them part of the stream.

        Returns:
            the pass, whose tokens are in the ring after the last ones until the next push, and
            the block; None if nothing waits.
        """
        if not self.pending:
            return None
        padded = self.pending + [self.pending[-1]] * (
            self.adapter.temporal_patch - len(self.pending)
        )
        return self._forward(self._blocks(padded), keep=False)

    def carry_after(self, block: CachedBlock) -> Carry | None:
        """Return the state after a block, a question's own; None where the model has none.

        Raises:
            NoStateError: the model has one, but that of this moment is no longer kept.
        """
        window = self.window
        assert window is not None
        if window.carry is None:
            return None
        if self.archive.last is block:
            return window.carry.fork()
        if self._log is None:
            raise NoStateError(
                f"a question about what was seen up to {block.seconds[1]:.2f} s needs the state "
                f"that layers of this model ({self.adapter.family}) carried then, but "
                "snapshot_frames=0 keeps none; leave snapshot_frames out, or ask about everything"
            )
        try:
            return self._state_after(block)
        except NoStateError as error:
            raise NoStateError(
                "the state that layers of this model carried at "
                f"{block.seconds[1]:.2f} s is no longer kept ({error}); ask about a later moment, "
                "raise snapshot_ram, or keep the stream in a store"
            ) from error

    def _state_after(self, block: CachedBlock, lost: list[str] | None = None) -> Carry:
        window, log = self.window, self._log
        assert window is not None
        assert log is not None
        return state_after(
            block, self.frame_encoder, self.archive, log, window, self._opened_for,
            self._known, lost=lost,
        )  # fmt: skip

    def _blocks(self, frames: list[Frame]) -> list[Block]:
        assert self.grid is not None
        blocks = self.frame_encoder.blocks(frames, self.grid, len(self.archive))
        if self.window is None:
            self._open(len(blocks[0]))
        return blocks

    def _forward(self, blocks: list[Block], *, keep: bool) -> tuple[EncodePass, list[CachedBlock]]:
        assert self.window is not None
        return self.frame_encoder.run(
            blocks, self.window, self.archive, self._first_seconds, keep=keep
        )

    def _open(self, tokens: int) -> None:
        self.window = window = self.frame_encoder.open(tokens)
        self.archive.window_tokens = window.local
        self._opened_for = tokens
        if window.carry is None:
            return
        self._known = [(-1, window.carry)]
        config, patch = self._config, self.adapter.temporal_patch
        if self._log is None and config.snapshot_frames != 0:
            frames = config.snapshot_frames or frames_apart(
                window.carry.nbytes, tokens * self.adapter.bytes_per_embedding, patch
            )
            every = -(-frames // patch)
            self._log = (
                MemoryLog(every, config.snapshot_ram) if self.store is None else StoreLog(every)
            )
        if self._log is not None:
            # a store must keep what the newest snapshot's window showed, and all that came after
            self.archive.window_tokens += window.chunk + self._log.every * tokens

    def _write_header(self) -> None:
        window, grid = self.window, self.grid
        if self.store is not None and window is not None and grid is not None:
            far = window.far_distance
            header = StreamHeader(grid, self._first_seconds, self._opened_for, far)
            resume.write_header(self.store, header)

    def _encode(self, blocks: list[Block]) -> None:
        window = self.window
        assert window is not None
        while blocks:
            total = np.cumsum([len(b) for b in blocks])
            take = max(1, int(np.searchsorted(total, window.chunk, side="right")))
            done, archived = self._forward(blocks[:take], keep=True)
            started = time.perf_counter()
            self._write_header()
            if self._log is not None and done.carry is not None:
                self._log.add(archived, blocks[:take], done.carry)
            self._uncommitted = done
            self.archive.append(archived, done.summaries, done.summaries_on_host or None)
            done.commit()
            if done.carry is not None:
                before = self._known[-1:] if done.carry.nbytes <= _SMALL else []
                self._known = [*before, (archived[-1].index, done.carry)]
            self._uncommitted = None
            self._drop_encoded(archived[-1])
            self._archiving += time.perf_counter() - started
            blocks = blocks[take:]

    def _drop_encoded(self, last: CachedBlock) -> None:
        self.pending = [p for p in self.pending if p[0] > last.seconds[1]]
