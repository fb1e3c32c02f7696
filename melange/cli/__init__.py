"""The command line: parse, one library call, render. One module a command, imported on use."""
