"""A checkpoint at work: listening, decoding, vocoding, denoising."""
