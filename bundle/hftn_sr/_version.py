"""The version and the notice that every result carries, apart from all else so that every module can name them."""

__all__ = ["NOTICE", "__version__"]

__version__ = "0.1.0"
NOTICE = "Research use only. Not for clinical use."
