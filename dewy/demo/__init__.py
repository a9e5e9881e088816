"""`dewy demo`: a small fleet on this machine, on embedded stores, deploying a real HTTP application."""

from dewy.demo.story import run

__all__ = ["run"]
