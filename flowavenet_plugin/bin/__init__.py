"""Commands, run as ``python -m flowavenet_plugin.bin.<name>``."""
