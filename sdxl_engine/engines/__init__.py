"""Engines: one protocol, one file per engine."""
