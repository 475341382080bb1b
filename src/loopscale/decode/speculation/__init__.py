"""Speculation: a wavefront of loops over tokens, drafted early and confirmed at full depth."""
