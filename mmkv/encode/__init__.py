"""A frame on its way in: through the model into the window, and from there into the archive."""
