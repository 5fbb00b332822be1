"""Files read by decord or OpenCV where they agree with PyAV, and by PyAV where they do not."""

from importlib.util import find_spec

from mmkv.video.errors import VideoError
from mmkv.video.source import FrameSource

_CALLED = {"decord": "decord", "opencv": "OpenCV"}


def open_checked(
    reader: str,
    path: str,
    name: str,
    *,
    fps: float | None,
    max_side: int | None = None,
    head: bytes = b"",
) -> FrameSource:
    """Open a file with a reader that gets some kinds of files wrong.

    PyAV reads the packets first, which takes as long as copying the file, and decodes one frame.
    The reader is used where its index and its first picture are what PyAV found.

    Args:
        reader: "decord" or "opencv".
        path: the file.
        name: what to call it in messages.
        fps: frames per second to choose; None for all.
        max_side: larger frames are scaled down to this many pixels a side.
        head: the first bytes of the file.

    Returns:
        the reader's frames; or PyAV's, with the reason in `warnings`. Where PyAV is not installed,
        the reader's, with the warning that nothing was checked.

    Raises:
        VideoError: PyAV cannot read the file either, or is not installed and the reader cannot.
    """
    from mmkv.video.decord_file import DecordFile
    from mmkv.video.opencv_file import OpenCvFile

    kind = DecordFile if reader == "decord" else OpenCvFile
    called = _CALLED[reader]
    if find_spec("av") is None:
        source = kind(path, name, fps=fps, max_side=max_side)
        source.warnings.append(
            f"{name}: whether {called} gives its frames at their times could not be checked, "
            "because PyAV is not installed (pip install av)"
        )
        return source
    from mmkv.video.expected import Unfit
    from mmkv.video.packets import expect
    from mmkv.video.pyav_file import Job, PyAvFile

    try:
        expected = expect(Job(f"file:{path}", name, None, None, head=head))
        source = kind(path, name, fps=fps, max_side=max_side, expected=expected)
        source.warnings[:0] = expected.job.warnings
        return source
    except Unfit as reason:
        why = str(reason)
    except VideoError as error:
        why = str(error).removeprefix(f"{name}: ")
    note = f"{name}: read by PyAV instead of {called}: {why}"
    return PyAvFile(Job(f"file:{path}", name, fps, max_side, head=head, warnings=[note]))
