"""A plugin for pytest in the emulated machine: a failure is told in full when it happens, not an hour later."""

import pytest


class _AtOnce:
    """Writes through the reporter of the terminal."""

    def __init__(self, config: pytest.Config) -> None:
        self._terminal = config.pluginmanager.getplugin("terminalreporter")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.ensure_newline()
            self._terminal.section(f"{report.nodeid} ({report.when}, {report.duration:.0f} s)", sep="-")
            self._terminal.write_line(report.longreprtext)
            for name, text in report.sections:
                self._terminal.write_line(f"{name}:\n{text}")


# Last, when the reporter of the terminal is there and has said its own.
@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest: begin."""
    config.pluginmanager.register(_AtOnce(config))
