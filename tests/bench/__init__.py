"""The benchmark behind `make bench`: this runtime, runc and crun, side by side in one run (docs/performance.md)."""
