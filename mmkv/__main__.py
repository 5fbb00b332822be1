"""Runs the `mmkv` command as `python -m mmkv`."""

from mmkv.cli import main

if __name__ == "__main__":
    main()
