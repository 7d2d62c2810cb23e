"""Apps on a Linux device: one package file installs, checks, serves and removes a model."""
