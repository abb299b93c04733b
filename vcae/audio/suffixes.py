"""Suffixes of sound files and videos. Without torch."""

# Suffixes of the sound files of a folder; a file given by name may have any suffix.
SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".sph"),
    *(".m4a", ".m4b", ".aac", ".wma", ".amr", ".3gp", ".3g2", ".ac3", ".weba"),
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts"),
)
