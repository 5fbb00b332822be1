"""Encoding frames: through the model into the window, and from there into the archive."""
