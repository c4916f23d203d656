"""What every program has at its edge: settings, configuration file, flags, logs, certificates and the watch port.

A setting comes from the YAML file; an environment variable overrides the file, and a flag overrides both.
"""

from provgate_runtime.document import ConfigDocument
from provgate_runtime.options import load_section, setting_options
from provgate_runtime.settings import ConfigurationError, Settings, convert

__all__ = [
    "ConfigDocument",
    "ConfigurationError",
    "Settings",
    "convert",
    "load_section",
    "setting_options",
]
