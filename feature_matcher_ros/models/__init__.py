"""Exportable torch definitions of the networks, one file a network."""
