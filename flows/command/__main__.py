"""`python -m flows.command` is `pile`."""

from flows.command.main import main

main()
