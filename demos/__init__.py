"""mmkv."""
