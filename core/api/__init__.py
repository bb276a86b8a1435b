"""What `import featherweight` gives to programmers: its names, and nothing that they do not need."""
