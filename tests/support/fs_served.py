"""A tree for tests of the launch: each file says whose it is, so that a wrong bind is seen at once."""

from sysvisor_fs.node import Branch, Caller, Container, Directory, File


class Whose(File):
    """`WORD ID PID`: the container that it was read in, as the daemon was told."""

    def __init__(self, word: str) -> None:
        self.word = word

    def read(self, container: Container, caller: Caller) -> bytes:
        return f"{self.word} {container.id} {container.init_pid} {container.uid_first}\n".encode()


def build_tree() -> Directory:
    """Some of what the real one has."""
    sys_kernel = Branch({"hostname": Whose("hostname")})
    proc = {"uptime": Whose("uptime"), "meminfo": Whose("meminfo")}
    proc_sys = Branch({"kernel": sys_kernel, "fs": Branch({"binfmt_misc": Branch({})})})
    return Branch({"proc": Branch({**proc, "sys": proc_sys}), "sys": Branch({"kernel": Branch({})})})
