"""What stands below the options in the help texts: notes, examples, exit codes. `\\b` keeps lines as they are."""

from typing import Final

CONFIG: Final = """\b
Examples:
  dewy config
  dewy config --config dewy.toml server
  dewy config server --registry ghr://owner/repo -p 8000 -- /opt/app/current/app

\b
Exit codes: 0 all is well, 2 something is wrong: one line on stderr says what.
"""
COMPLETION: Final = """\b
  bash   dewy completion bash > ~/.local/share/bash-completion/completions/dewy
  zsh    dewy completion zsh > ~/.zfunc/_dewy      (with ~/.zfunc in fpath, before compinit)
  fish   dewy completion fish > ~/.config/fish/completions/dewy.fish
"""
RUN: Final = """\b
Every option is also a variable, DEWY_INTERVAL for --interval, and a key of the TOML file:
flag, then environment, then file, then default. `dewy config` shows what is in force.
--no-NAME takes a flag back that the environment or the file sets.
DEWY_CACHEDIR is the cache directory; .dewy/cache under the working directory unless set.

\b
Examples:
  dewy server --registry ghr://owner/repo -p 8000 -- /opt/app/current/app
  dewy assets --registry file:///srv/releases --interval 1m
  dewy server --registry ghr://owner/repo \\
      --cache 's3://ap-northeast-1/bucket/app?registry-ttl=30s' -- ./current/app

\b
Exit codes: 0 stopped by a signal, 1 failed at work, 2 wrong usage.
"""
DEWY: Final = """\b
Examples:
  dewy server --registry ghr://owner/repo -p 8000 -- /opt/app/current/app
  dewy assets --registry file:///srv/releases --interval 1m
  dewy server --help

\b
Exit codes: 0 done, 1 failed at work, 2 wrong usage.
"""
