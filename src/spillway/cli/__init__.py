"""The command line: a verb is a module of this package. Floor 9."""
