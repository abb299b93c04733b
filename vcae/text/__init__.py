"""Text from recordings: decoding of a transcriber's output, a lexicon and language model, and files of transcripts."""
