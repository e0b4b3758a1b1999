"""`python -m secure_afl`, where the command is not on the path."""

from secure_afl.cli.main import main

main()
