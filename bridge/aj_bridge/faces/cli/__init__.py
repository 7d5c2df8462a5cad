"""The commands `aj-bridge` and `ajc`: read the command line, call what is below, print."""
