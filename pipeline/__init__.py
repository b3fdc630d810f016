"""Reads `pipeline.yaml` and runs the stages in order. Imports no stage."""
