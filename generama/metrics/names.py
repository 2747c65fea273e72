"""What a number is called: only Inception's own features give numbers that are named as in the papers."""

from __future__ import annotations

PAPERS = "inception"  # the extractor, with the published weights, in which FID, KID and the Inception score are defined


def distance_name(extractor: str) -> str:
    """What the Fréchet distance in an extractor's features is called: "FID" for `inception` alone."""
    return "FID" if extractor == PAPERS else f"Fréchet distance ({extractor})"


def kernel_name(extractor: str) -> str:
    """What the kernel distance in an extractor's features is called: "KID" for `inception` alone."""
    return "KID" if extractor == PAPERS else f"Kernel distance ({extractor})"


def score_name(extractor: str) -> str:
    """What exp of the mean KL(p(y|x) || p(y)) is called, by the extractor of the distances beside it.

    Every other extractor than `inception` leaves the classes to the classifier of the data's own labels.
    """
    return "Inception score" if extractor == PAPERS else "Inception-style score (classifier)"
