"""A checkpoint on a device: analysis, decoding, vocoding, denoising."""
