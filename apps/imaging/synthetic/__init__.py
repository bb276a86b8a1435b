"""Drawn chest radiographs with a known truth."""
