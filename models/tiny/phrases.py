"""How questions are worded: {o} is an object, {p} a place, {c} a colour, {s} a shape."""

from __future__ import annotations

NUMBERS = ("zero", "one", "two", "three", "four")

PHRASES: dict[str, tuple[str, ...]] = {
    "colour": (
        "what colour was the {s} with the {o}?",
        "which colour was the {s} next to the {o}?",
        "what colour did the {s} with the {o} have?",
    ),
    "colour alone": ("what colour was the {s}?", "which colour did the {s} have?"),
    "shape": (
        "what shape was the {c} one with the {o}?",
        "which shape was the {c} one next to the {o}?",
        "what {c} shape was with the {o}?",
    ),
    "shape alone": ("what shape was the {c} one?", "which shape was {c}?"),
    "place": (
        "where was the {o}?",
        "in which corner was the {o}?",
        "where did the {o} appear?",
        "where did you see the {o}?",
    ),
    "with": (
        "what was at the {p} with the {o}?",
        "what was with the {o} at the {p}?",
        "which shape was at the {p} next to the {o}?",
    ),
    "now": (
        "what is at the {p} now?",
        "what is now at the {p}?",
        "what do you see at the {p} now?",
    ),
    "now all": ("what is there now?", "what do you see now?"),
    "before": (
        "what was there before the {o}?",
        "what came before the {o}?",
        "what did you see before the {o}?",
    ),
    "before place": (
        "what was at the {p} before the {o}?",
        "before the {o} what was at the {p}?",
    ),
    "after": (
        "what was there after the {o}?",
        "what came after the {o}?",
        "what did you see after the {o}?",
    ),
    "after place": ("what was at the {p} after the {o}?", "after the {o} what was at the {p}?"),
    "exists": (
        "was there a {o}?",
        "did you see a {o}?",
        "did a {o} appear?",
        "was a {o} in the video?",
    ),
    "count": (
        "how many shapes were there with the {o}?",
        "how many shapes were there when the {o} was there?",
        "how many shapes did you see when the {o} appeared?",
    ),
    "count now": ("how many shapes are there now?", "how many shapes do you see now?"),
    "caption": ("describe the video", "what happens in the video?", "describe what you see"),
    "follow with": ("what was at the {p} with it?", "and what was with it at the {p}?"),
    "follow place": ("where was it?", "and in which corner was it?"),
    "follow count": ("how many shapes were there with it?", "and how many shapes were there?"),
}
