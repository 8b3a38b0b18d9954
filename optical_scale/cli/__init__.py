"""The command line: arguments become a configuration, a configuration goes to a recipe."""
