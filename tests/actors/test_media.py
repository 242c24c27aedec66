"""Only known kinds of pictures and clips are opened, whatever a received file says of itself."""

import io
import os

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from actors.media import PICTURE_KINDS, clip_timing, decode, ending, measures

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def clip(format, codec):
    import av

    out = io.BytesIO()
    with av.open(out, mode="w", format=format) as container:
        stream = container.add_stream(codec, rate=8)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


@pytest.mark.parametrize("kind", PICTURE_KINDS)
def test_a_picture_of_every_known_kind_decodes(kind):
    out = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(out, format=kind)
    assert decode(out.getvalue(), clip=False).shape == (1, 6, 8, 3)
    found = measures(out.getvalue(), clip=False)
    assert (found.height, found.width) == (6, 8)
    assert ending(out.getvalue()) != ".data"


def test_postscript_is_not_handed_to_ghostscript(tmp_path, monkeypatch):
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/was_run\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for read in (decode, measures):
        with pytest.raises(UnidentifiedImageError):
            read(EPS, clip=False)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("format", "codec"), [("mp4", "mpeg4"), ("mov", "mpeg4"), ("matroska", "mpeg4"), ("webm", "libvpx"), ("avi", "mpeg4")]
)
def test_a_clip_of_every_known_kind_decodes(format, codec):
    data = clip(format, codec)
    assert decode(data, clip=True).shape == (3, 16, 16, 3)
    found = measures(data, clip=True)
    assert (found.height, found.width) == (16, 16)
    assert clip_timing(data) == (8, 3)


@pytest.mark.parametrize(
    "read", [clip_timing, lambda data: decode(data, clip=True), lambda data: measures(data, clip=True)]
)
def test_a_playlist_is_not_followed(read, tmp_path):
    (tmp_path / "other.mp4").write_bytes(clip("mp4", "mpeg4"))
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/other.mp4\n#EXT-X-ENDLIST\n"
    for playlist in (hls, f"ffconcat version 1.0\nfile {tmp_path}/other.mp4\n"):
        with pytest.raises(ValueError, match="none of MP4, MOV, WebM, Matroska and AVI"):
            read(playlist.encode())
