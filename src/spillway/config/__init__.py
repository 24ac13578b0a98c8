"""Reads configuration files: nobody else does. Composes what the packages call their settings. Floor 7."""

from spillway.config.configuration import Configuration
from spillway.config.keys import fixed_keys
from spillway.config.loading import load, parse
from spillway.config.problems import InvalidConfigurationError, Problem
from spillway.config.schema import schema

__all__ = ["Configuration", "InvalidConfigurationError", "Problem", "fixed_keys", "load", "parse", "schema"]
