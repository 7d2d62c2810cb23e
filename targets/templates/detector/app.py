"""Objects in images: the answer of the app to one image."""

# Boxes with a lower confidence are not shown.
LEAST_CONFIDENCE = 0.3


def answer(models, sample):
    """Return the answer to one image.

    ``models`` holds an ``edgekit_agent.Session`` for each model of app.toml, and ``sample`` the
    bytes of an image file. The page draws the boxes of the dictionary that is returned.
    """
    found = models["main"].predict(sample)
    found["result"] = [b for b in found["result"] if b["confidence"] >= LEAST_CONFIDENCE]
    if not found["result"]:
        found["confidence"] = None
    return found
