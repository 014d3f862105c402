"""`python -m mmserve`."""

from mmserve.cli import main

main(prog_name="mmserve")
