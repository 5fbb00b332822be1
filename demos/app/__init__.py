"""The browser demo: `mmkv demo`.

From the inside out: a `Session` is one visitor's video, stream and conversation; the `Registry`
holds the sessions, their limits and the queue of those who wait; `views` turn what they hold into
HTML; `page` is the Gradio page; `routes` and `guard` are what the browser may request besides it;
`server` puts it together.
"""
