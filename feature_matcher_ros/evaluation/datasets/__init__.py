"""Readers of published dataset layouts, one module each; all of them yield a ``FileSequence``."""
