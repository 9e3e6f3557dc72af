"""The launcher: hub environment, children, the Jupyter extension, the streaming proxy."""
