"""Sound from a mel-spectrogram without a network: pulses and noise, then iterations between STFT and mel."""
