"""What Generama costs: measured here on a small scale, and estimated where a GPU is needed."""
