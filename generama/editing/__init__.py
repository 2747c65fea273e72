"""Editing pictures with a trained run: which pictures and where in them, and the folder that comes of it."""
