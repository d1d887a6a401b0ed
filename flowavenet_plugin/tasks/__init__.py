"""Training tasks on ESPnet2's trainer."""
