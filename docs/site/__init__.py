"""Documentation site: pages from the project's own Markdown and docstrings, built without a request to anywhere."""
