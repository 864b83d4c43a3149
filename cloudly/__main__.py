"""`python -m cloudly`: the same as the `cloudly` command."""

from cloudly.cli import main

main()
