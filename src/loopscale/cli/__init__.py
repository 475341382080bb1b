"""The command line: one thin file per command with `run(args) -> exit status`; options stand in `options`."""
