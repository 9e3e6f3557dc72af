"""The tests. They go through public doors: sockets, commands, files."""
