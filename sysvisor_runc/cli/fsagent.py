"""How a launch has gRPC calls made: the layers below are handed this, since they may not import aio."""

from __future__ import annotations


def serve_fs_agent(link: int) -> None:
    """Be the process that makes them, as they come in at `link`, until its end."""
    from sysvisor_runc.aio.fs import serve_agent

    serve_agent(link)
