"""The command line: the only room that parses arguments, prints and sets exit codes."""
