"""The doors to providers. A door turns one attempt into bytes and looks; it holds no policy."""
