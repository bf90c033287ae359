"""The tests of sysvisor-runc; docs/testing.md says what is where and how to add one."""
