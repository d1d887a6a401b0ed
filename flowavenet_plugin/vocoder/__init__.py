"""Vocoders: un-normalised mel-spectrogram in, waveform out; need torch only."""
