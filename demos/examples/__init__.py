"""Short programs to start from; each runs as it is on the bundled model and video."""
