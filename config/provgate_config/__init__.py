"""Settings of every program: one YAML file, overridden by environment variables, overridden by flags."""

from provgate_config.document import ConfigDocument
from provgate_config.errors import ConfigurationError
from provgate_config.options import load_section, setting_options
from provgate_config.settings import Settings, convert

__all__ = [
    "ConfigDocument",
    "ConfigurationError",
    "Settings",
    "convert",
    "load_section",
    "setting_options",
]
