"""Measurement: checks of what is given, the derivatives of an audit, and the figures that batches are gathered into.

It knows coordinates and verdicts; who measures what, and in which order, stands above it.
"""
