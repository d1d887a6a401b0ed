"""Vocoders: un-normalised mel-spectrogram in, waveform out; they need torch, numpy and PyYAML, not ESPnet2."""
