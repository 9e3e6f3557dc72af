"""The line of a request: route, cache, flight, fallback, breaker, retry. No HTTP server, no vendor in it."""
