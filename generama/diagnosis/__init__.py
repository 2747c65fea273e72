"""Diagnosis in plain words: what is wrong with a run, what shows it, and what to try."""

from generama.diagnosis.examination import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
