"""Classes of images: the answer of the app to one image."""

# Below this confidence the page shows a note above the classes.
LEAST_CONFIDENCE = 0.5


def answer(models, sample):
    """Return the answer to one image.

    ``models`` holds an ``edgekit_agent.Session`` for each model of app.toml, and ``sample`` the
    bytes of an image file. The page shows the dictionary that is returned.
    """
    found = models["main"].predict(sample)
    if found["confidence"] is not None and found["confidence"] < LEAST_CONFIDENCE:
        found["note"] = "The model is not sure; take another picture."
    return found
