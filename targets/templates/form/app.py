"""Values of a form: the answer of the app to one row."""


def answer(models, sample):
    """Return the answer to one row.

    ``models`` holds an ``edgekit_agent.Session`` for each model of app.toml, and ``sample`` the
    values of the form by the names of the fields. The page shows the dictionary that is returned.
    """
    return models["main"].predict(sample)
