"""Places of measurement other than those that an agent of edgekit runs on."""
