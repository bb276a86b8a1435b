"""Metrics of the services."""
