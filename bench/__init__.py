"""`make bench`: measures, side by side in one run on the same servers, and writes docs/benchmarks.md."""
