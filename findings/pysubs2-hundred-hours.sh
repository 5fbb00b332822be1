#!/usr/bin/env bash
# pysubs2 1.8.1: subtitles after the hundredth hour are read as if they stood at the beginning.
#
# A SubRip cue at 100:00:01 is read at 0:00:01, without an error: of the hours only the last two
# digits are taken. srt 3.5.3 reads the same text rightly, and so does pysubs2 itself in
# WebVTT. Streams of more than four days come to such times.
#
# Seen: SubRip 1000 ms, WebVTT 360001000 ms; srt 360001 s.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet pysubs2==1.8.1 srt==3.5.3
"$folder/env/bin/python" - <<'PYTHON'
import pysubs2
import srt

CUE = "1\n100:00:01,000 --> 100:00:02,000\nhello\n\n"
subrip = pysubs2.SSAFile.from_string(CUE, format_="srt")[0].start
webvtt = pysubs2.SSAFile.from_string("WEBVTT\n\n" + CUE.replace(",", "."), format_="vtt")[0].start
seconds = next(srt.parse(CUE)).start.total_seconds()
print(f"pysubs2: SubRip {subrip} ms, WebVTT {webvtt} ms; srt: {seconds:g} s")
assert (subrip, webvtt, seconds) == (1000, 360_001_000, 360_001)
PYTHON
