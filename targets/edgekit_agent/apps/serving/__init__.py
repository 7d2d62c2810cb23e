"""Server of an app: HTTP, the process of its models, and its start and end."""
