"""Modules that turn tokens or patches into token vectors."""
