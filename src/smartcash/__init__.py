"""SmartCash: an open training studio for banknote vision."""

__version__ = "0.1.0.dev0"
