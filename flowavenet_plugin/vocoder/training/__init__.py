"""What a vocoder is trained by: likelihood, distances of sampled speech, discriminators."""
