"""Creates nothing, as the sources exist already."""


def make(folder):
    pass
