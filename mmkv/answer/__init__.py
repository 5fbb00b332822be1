"""Answering a question: what it may see, what it retrieves, and the answer's text."""

from mmkv.answer.answer import Answer, FrameRef

__all__ = ["Answer", "FrameRef"]
