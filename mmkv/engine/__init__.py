"""The model, and what all passes through it share."""
