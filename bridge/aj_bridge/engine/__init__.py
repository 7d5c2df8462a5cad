"""The shell: takes what storage delivers, asks the core, and carries out what it says."""
