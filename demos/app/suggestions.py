"""Questions to try on the bundled video."""

from __future__ import annotations

import json

from mmkv.models.tiny import SAMPLE_NOTES

# about scenes early and late in it
TRIED = (
    "In which corner was the white ring?",
    "What came after the purple star?",
    "Where did you see the yellow triangle?",
    "Where did the blue square appear?",
)


def suggestions() -> list[str]:
    """List the questions about the bundled video that the page offers."""
    known = {
        note["question"]
        for note in json.loads(SAMPLE_NOTES.read_text(encoding="utf-8"))["questions"]
    }
    return [question for question in TRIED if question in known]
