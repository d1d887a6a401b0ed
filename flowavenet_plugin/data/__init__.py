"""From lists of recordings to aligned audio and features."""
