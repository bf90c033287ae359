"""Programs for building, installing and trying sysvisor-runc; none of them is needed to run it."""
