"""The child's failures: what it was doing, for the message that the command prints. May import nothing."""


class ChildError(Exception):
    """A step of the child failed for a reason that is not a bare system call's."""
