"""The command line: the only package that parses arguments, prints and sets exit codes."""
