"""`python -m mmkv` is the `mmkv` command."""

from mmkv.cli import main

if __name__ == "__main__":
    main()
