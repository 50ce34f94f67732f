"""Placeholder; replaced by the part."""
