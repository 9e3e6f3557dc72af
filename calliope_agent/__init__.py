"""calliope_agent: the backend of an in-IDE AI agent, and the launcher of the container around it."""

__version__ = "0.1.0"
