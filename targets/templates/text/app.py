"""Texts: the answer of the app to one text."""


def answer(models, sample):
    """Return the answer to one text.

    ``models`` holds an ``edgekit_agent.Session`` for each model of app.toml, and ``sample`` the
    text. The page shows the dictionary that is returned.
    """
    return models["main"].predict(sample.strip())
