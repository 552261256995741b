"""The formats that can be written: every module beside this one defines `FORMAT`."""

from importlib import import_module
from pkgutil import iter_modules

from smartcash.backend.exporters.model import Format

_found: list[Format] = [
    import_module(f"{__name__}.{module.name}").FORMAT for module in iter_modules(__path__)
]

FORMATS: dict[str, Format] = {form.name: form for form in sorted(_found, key=lambda form: form.name)}
