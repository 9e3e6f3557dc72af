"""The settings: flag > environment > config.toml > default, each with its provenance.

The table is the `Settings` class itself: every field carries its variable, its parser and its help, so that
``doctor``, the README's test and ``GET /api/settings`` read one source.

Decisions
1. A bad environment value stops the start (an operator wants to know at once); a bad line of config.toml is a
   *problem*: that one setting keeps its default and the rest works, since a person edits that file while the
   server runs.
2. config.toml's keys are the variables without ``CALLIOPE_``, in lower case: one name to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from calliope_agent import parse
from calliope_agent.errors import ConfigError
from calliope_agent.secret import Secret
from calliope_agent.tomlfile import TomlFile, near


def setting(
    variable: str,
    default: Any,
    parser: Callable[[str], Any],
    text: str,
    *,
    secret: bool = False,
    in_file: bool = True,
) -> Any:
    """A field of `Settings`; ``parser`` turns a text into the value or raises ValueError saying what is allowed."""
    metadata = {"variable": variable, "parser": parser, "help": text, "secret": secret, "in_file": in_file}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: ``kind`` is flag, environment, file or default; ``where`` names it for a person."""

    kind: Literal["flag", "environment", "file", "default"]
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The agent's settings. Times are seconds, sizes are bytes unless the name says otherwise."""

    agent_port: int = setting("CALLIOPE_AGENT_PORT", 8072, parse.port, "port of the agent server on 127.0.0.1")
    log_level: str = setting("LOG_LEVEL", "INFO", parse.log_level, "DEBUG, INFO, WARNING, ERROR or CRITICAL")
    agent_token: Secret | None = setting(
        "CALLIOPE_AGENT_TOKEN", None, parse.token, "token with the scope complete", secret=True, in_file=False
    )
    manage_token: Secret | None = setting(
        "CALLIOPE_MANAGE_TOKEN", None, parse.token, "token with the scope manage", secret=True, in_file=False
    )
    agent_url: str | None = setting(
        "CALLIOPE_AGENT_URL", None, parse.http_url, "a running agent that the commands talk to", in_file=False
    )
    chat_model: str | None = setting("CALLIOPE_CHAT_MODEL", None, parse.model, "target of the role chat")
    inline_model: str | None = setting("CALLIOPE_INLINE_MODEL", None, parse.model, "target of the role inline")
    embed_model: str | None = setting("CALLIOPE_EMBED_MODEL", None, parse.model, "target of the role embed")
    fast_model: str | None = setting("CALLIOPE_FAST_MODEL", None, parse.model, "target of the role fast")
    fallbacks: tuple[str, ...] = setting(
        "CALLIOPE_FALLBACKS", (), parse.models, "targets to ask in order when the first fails, for every role"
    )
    fallbacks_chat: tuple[str, ...] = setting("CALLIOPE_FALLBACKS_CHAT", (), parse.models, "the same, for chat")
    fallbacks_inline: tuple[str, ...] = setting("CALLIOPE_FALLBACKS_INLINE", (), parse.models, "the same, for inline")
    fallbacks_embed: tuple[str, ...] = setting("CALLIOPE_FALLBACKS_EMBED", (), parse.models, "the same, for embed")
    fallbacks_fast: tuple[str, ...] = setting("CALLIOPE_FALLBACKS_FAST", (), parse.models, "the same, for fast")
    model_fallbacks: Mapping[str, tuple[str, ...]] = setting(
        "CALLIOPE_MODEL_FALLBACKS",
        {},
        parse.model_fallbacks,
        "chains for single models: provider/model=provider/model+provider/model, separated by commas",
    )
    fallback_on_refusal: bool = setting(
        "CALLIOPE_FALLBACK_ON_REFUSAL", False, parse.flag, "whether a content refusal asks the next target"
    )
    model_aliases: Mapping[str, str] = setting(
        "CALLIOPE_MODEL_ALIASES", {}, parse.aliases, "patterns of model names and what they mean: claude-*=chat"
    )
    offline: str = setting(
        "CALLIOPE_OFFLINE", "off", parse.one_of("off", "local"), "local: the local model answers when a role's are away"
    )
    user_keys: str = setting(
        "CALLIOPE_USER_KEYS",
        "allow",
        parse.one_of("deny", "allow", "override"),
        "whether a person's own keys count",
        in_file=False,
    )
    require_key_separation: bool = setting(
        "CALLIOPE_REQUIRE_KEY_SEPARATION",
        False,
        parse.flag,
        "refuse operator keys that the person could read",
        in_file=False,
    )
    cache: str = setting("CALLIOPE_CACHE", "on", parse.one_of("off", "on", "all"), "which answers are kept")
    cache_ttl_s: float = setting("CALLIOPE_CACHE_TTL_S", 86_400.0, parse.seconds, "how long an answer is kept")
    cache_max_mb: int = setting("CALLIOPE_CACHE_MAX_MB", 256, parse.count, "size bound of the cache on disk, in MB")
    store_content: bool = setting("CALLIOPE_STORE_CONTENT", True, parse.flag, "off: no prompt or answer on any disk")
    request_deadline_s: float = setting(
        "CALLIOPE_REQUEST_DEADLINE_S", 600.0, parse.seconds, "bound on everything before the first content"
    )
    connect_timeout_s: float = setting("CALLIOPE_CONNECT_TIMEOUT_S", 5.0, parse.seconds, "bound on a connection")
    first_token_timeout_s: float = setting(
        "CALLIOPE_FIRST_TOKEN_TIMEOUT_S", 120.0, parse.seconds, "bound on one attempt's first content"
    )
    idle_timeout_s: float = setting(
        "CALLIOPE_IDLE_TIMEOUT_S", 60.0, parse.seconds, "silence within a stream that is taken for a stall"
    )
    first_byte_hold_s: float = setting(
        "CALLIOPE_FIRST_BYTE_HOLD_S", 10.0, parse.seconds, "how long a stream keeps its status open"
    )
    max_attempts: int = setting("CALLIOPE_MAX_ATTEMPTS", 3, parse.count, "attempts of a request without fallbacks")
    drain_s: float = setting("CALLIOPE_DRAIN_S", 5.0, parse.seconds, "how long running streams may finish at a stop")
    resume_grace_s: float = setting(
        "CALLIOPE_RESUME_GRACE_S", 60.0, parse.seconds, "how long a resumable stream outlives its reader"
    )
    inline_budget_s: float = setting(
        "CALLIOPE_INLINE_BUDGET_S", 2.0, parse.seconds, "latency budget of an inline suggestion"
    )
    body_timeout_s: float = setting(
        "CALLIOPE_BODY_TIMEOUT_S", 60.0, parse.seconds, "silence of a caller in the middle of a request's body"
    )
    max_body_mb: int = setting("CALLIOPE_MAX_BODY_MB", 32, parse.count, "bound on a request's body, in MB")
    max_answer_mb: int = setting("CALLIOPE_MAX_ANSWER_MB", 64, parse.count, "bound on one answer, in MB")
    local_model: str = setting(
        "CALLIOPE_LOCAL_MODEL", "smollm2-135m", parse.text, "a known model's name or the path of a GGUF file"
    )
    preload: str = setting("CALLIOPE_PRELOAD", "", parse.one_of("", "litellm"), "litellm: import it at the start")
    keys_passphrase: Secret | None = setting(
        "CALLIOPE_KEYS_PASSPHRASE", None, parse.secret, "opens the encrypted key file", secret=True, in_file=False
    )
    metrics_token: Secret | None = setting(
        "CALLIOPE_METRICS_TOKEN", None, parse.token, "a token that reads /metrics only", secret=True, in_file=False
    )
    # Not in config.toml, which is the person's: files of this folder may name the operator's variables, files and commands.
    providers_dir: Path = setting(
        "CALLIOPE_PROVIDERS_DIR",
        Path("/etc/calliope/providers.d"),
        Path,
        "the operator's provider files",
        in_file=False,
    )
    config_dir: Path | None = setting("CALLIOPE_CONFIG_DIR", None, Path, "keys, config.toml", in_file=False)
    data_dir: Path | None = setting("CALLIOPE_DATA_DIR", None, Path, "the local model, the IDE", in_file=False)
    state_dir: Path | None = setting("CALLIOPE_STATE_DIR", None, Path, "cache, ledger", in_file=False)
    runtime_dir: Path | None = setting("CALLIOPE_RUNTIME_DIR", None, Path, "tokens, sockets", in_file=False)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the place every value came from, and what was wrong but did not stop us."""

    settings: Settings
    origins: Mapping[str, Origin]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    flags: Mapping[str, str] = field(default_factory=dict)


# Families of names that are read one by one elsewhere (launcher, image), so that `doctor` does not call them unknown.
OTHER_NAMES = frozenset({
    "WAIIDE_IDE_COMMAND", "WAIIDE_RESTART_ROLE", "WAIIDE_IDLE_SHUTDOWN_S", "WAIIDE_IDE_TCP",
    "WAIIDE_EXTENSIONS_GALLERY", "WAIIDE_ALLOW_SHARED", "WAIIDE_PASS_ENV", "CALLIOPE_TEST_WEIGHTS",
    "CALLIOPE_PERSON_UID",
})  # fmt: skip


def variables() -> Mapping[str, Field[Any]]:
    """Variable name → field of `Settings`."""
    return {item.metadata["variable"]: item for item in fields(Settings)}


def file_key(variable: str) -> str:
    """``CALLIOPE_CACHE_TTL_S`` → ``cache_ttl_s``: the setting's name in config.toml."""
    return variable.removeprefix("CALLIOPE_").lower()


def load(environ: Mapping[str, str], file: TomlFile | None = None, flags: Mapping[str, str] | None = None) -> Loaded:
    """Read every setting; ``flags`` maps variable names to texts. Raises `ConfigError` for a bad flag or variable."""
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    problems: list[str] = []
    for item in variables().values():
        value, origin = _find(item, environ, file, flags or {}, problems)
        origins[item.name] = origin
        if origin.kind != "default":
            values[item.name] = value
    problems += _unknown_keys(file) if file else []
    return Loaded(Settings(**values), origins, tuple(problems), tuple(_unknown_variables(environ)), flags or {})


def default_of(item: Field[Any]) -> Any:
    return item.default if item.default is not MISSING else cast("Callable[[], Any]", item.default_factory)()


def check(item: Field[Any], value: Any) -> None:
    """Raises `ConfigError` for a value that config.toml may not hold for this setting."""
    _parsed(item, _as_text(value), file_key(item.metadata["variable"]))


def _find(
    item: Field[Any],
    environ: Mapping[str, str],
    file: TomlFile | None,
    flags: Mapping[str, str],
    problems: list[str],
) -> tuple[Any, Origin]:
    variable = item.metadata["variable"]
    if variable in flags:
        return _parsed(item, flags[variable], f"flag for {variable}"), Origin("flag", "command line")
    if environ.get(variable, "").strip():
        return _parsed(item, environ[variable].strip(), variable), Origin("environment", variable)
    key = file_key(variable)
    if file is not None and key in file.data and item.metadata["in_file"]:
        try:
            return _parsed(item, _as_text(file.data[key]), file.where(key)), Origin("file", file.where(key))
        except ConfigError as exc:
            problems.append(exc.message)
    return default_of(item), Origin("default", "default")


def _parsed(item: Field[Any], text: str, where: str) -> Any:
    try:
        return item.metadata["parser"](text)
    except ValueError as exc:
        shown = "" if item.metadata["secret"] else f", not {text[:80]!r}"
        raise ConfigError(f"{where}: {exc}{shown}", param=item.metadata["variable"]) from exc


def _as_text(value: Any) -> str:
    """The file's typed values go through the same parsers as the environment's texts, so both mean the same."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    if isinstance(value, dict):
        joined = ((key, "+".join(part) if isinstance(part, list) else str(part)) for key, part in value.items())
        return ",".join(f"{key}={part}" for key, part in joined)
    return str(value)


def _unknown_keys(file: TomlFile) -> list[str]:
    known = {file_key(item.metadata["variable"]) for item in fields(Settings) if item.metadata["in_file"]}
    return [
        f"{file.where(key)}: there is no setting {key!r}.{near(key, known)}"
        for key in file.data
        if key not in known and key != "providers"
    ]


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = set(variables()) | OTHER_NAMES
    mine = (name for name in environ if name.startswith(("CALLIOPE_", "WAIIDE_")))
    return [f"{name} is not a setting.{near(name, known)}" for name in sorted(mine) if name not in known]
