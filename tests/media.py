"""Files as phones, messengers and meetings make them, from samples."""

from fractions import Fraction

import av
import numpy as np

# Suffix: (container, codec of the sound, its rate in Hz, codec of the pictures).
KINDS = {
    ".m4a": ("ipod", "aac", 44100, None),
    ".aac": ("adts", "aac", 44100, None),
    ".wma": ("asf", "wmav2", 44100, None),
    ".amr": ("amr", "libopencore_amrnb", 8000, None),
    ".3gp": ("3gp", "libopencore_amrnb", 8000, None),
    ".mp4": ("mp4", "aac", 44100, "mpeg4"),
    ".mov": ("mov", "aac", 48000, "libx264"),
    ".webm": ("webm", "libopus", 48000, "libvpx"),
    ".mkv": ("matroska", "aac", 48000, "libx264"),
}


def make_media(path, wav, sound=True, frame_rate=25):
    """Write samples at 16 kHz as the suffix says, with pictures as long as they are where it is a video."""
    container, codec, rate, pictures = KINDS[path.suffix]
    with av.open(str(path), "w", format=container) as made:
        if pictures:
            video = made.add_stream(pictures, rate=frame_rate)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        if sound:
            track = made.add_stream(codec, rate=rate)
            track.layout = "mono"
            if codec == "wmav2":
                track.bit_rate = 64000
        if pictures:
            for n in range(len(wav) * frame_rate // 16000):
                shade = np.full((48, 64, 3), 5 * n % 256, np.uint8)
                made.mux(video.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
            made.mux(video.encode(None))
        if sound:
            frame = av.AudioFrame.from_ndarray(wav[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            made.mux(track.encode(frame))
            made.mux(track.encode(None))
    return path


def pictures_of(path):
    """Return time and bytes of each packet of a video's pictures."""
    with av.open(str(path)) as opened:
        packets = [packet for packet in opened.demux(video=0) if packet.size]
        return [(round(float(packet.pts * packet.time_base), 3), bytes(packet)) for packet in packets]
