"""``calliope-agent chat``: a question, and the answer as it is written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from calliope_agent.cli.place import door
from calliope_agent.errors import InvalidRequest
from calliope_agent.log import one_line


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="*", help="the question; standard input is added to it when it is not a terminal")
    parser.add_argument("--model", default="chat", help="a role (chat, fast), provider/model, or a model's name")
    parser.add_argument("--system", help="instructions that come before the question")
    parser.add_argument("--max-tokens", type=int, help="bound on the answer's length")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    question = " ".join(args.text)
    if not sys.stdin.isatty():
        question = "\n\n".join(part for part in (question, sys.stdin.read().strip()) if part)
    if not question:
        raise InvalidRequest('There is no question. Try: calliope-agent chat "What is a tuple?"')
    messages = [{"role": "user", "content": question}]
    if args.system:
        messages.insert(0, {"role": "system", "content": args.system})
    body = {"model": args.model, "messages": messages, "stream": True}
    if args.max_tokens:
        body["max_tokens"] = args.max_tokens
    for event in door(environ).stream("/v1/chat/completions", body):
        for choice in event.get("choices") or []:
            sys.stdout.write(_shown(choice.get("delta", {}).get("content") or ""))
            sys.stdout.flush()
    print()
    return 0


def _shown(text: str) -> str:
    """A model's text may hold escapes that a terminal would obey; line ends are its own."""
    return "\n".join(one_line(line) for line in text.split("\n"))
