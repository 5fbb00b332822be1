"""mmkv-tiny: a small video language model for a small world, and the script that trains it."""

from pathlib import Path

FOLDER = Path(__file__).parent
CHECKPOINT = FOLDER / "checkpoint"
SAMPLE_VIDEO = FOLDER / "sample.mp4"
SAMPLE_NOTES = FOLDER / "sample.json"
