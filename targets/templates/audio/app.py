"""Sounds: the answer of the app to one recording."""


def answer(models, sample):
    """Return the answer to one recording.

    ``models`` holds an ``edgekit_agent.Session`` for each model of app.toml, and ``sample`` the
    bytes of a .wav file. The page shows the dictionary that is returned.
    """
    return models["main"].predict(sample)
