"""Digits of a chart: the answer of the app to one photo."""

LEAST_CONFIDENCE = 0.7


def answer(models, sample):
    """Return the digit in a photo; ask for another photo if the model is not sure."""
    found = models["main"].predict(sample)
    if found["confidence"] < LEAST_CONFIDENCE:
        found["note"] = "The digit is not clear. Take another photo, closer and in even light."
    return found
