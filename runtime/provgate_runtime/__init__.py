"""Settings of every program: one YAML file, overridden by environment variables, overridden by flags."""

from provgate_runtime.document import ConfigDocument
from provgate_runtime.errors import ConfigurationError
from provgate_runtime.options import load_section, setting_options
from provgate_runtime.settings import Settings, convert

__all__ = [
    "ConfigDocument",
    "ConfigurationError",
    "Settings",
    "convert",
    "load_section",
    "setting_options",
]
