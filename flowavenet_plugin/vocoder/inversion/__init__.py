"""Sound from a mel-spectrogram without a network: a start from pulses and noise, then iterations between STFT and mel."""
