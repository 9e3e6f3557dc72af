"""The autocomplete lane: fill-in-the-middle prompts, typed-through reuse, superseding."""
