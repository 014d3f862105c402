"""mmserve: scikit-learn models by the thousand from one CPU host, each in a process of its own."""

__version__ = "0.1.0"
