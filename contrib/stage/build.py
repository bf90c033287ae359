"""Compile stage.c for each architecture into sysvisor_runc/child/stage_code.py.

Run by `make stage` on a machine with gcc and gcc-aarch64-linux-gnu. The result is committed, so that neither a compiler
nor this script is needed to install or run the project.
"""

import pathlib
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "sysvisor_runc" / "child" / "stage_code.py"
COMPILERS = {"x86_64": "gcc", "aarch64": "aarch64-linux-gnu-gcc"}
# 64 bytes of ELF header and two program headers of 56 bytes lie before the code.
TEXT = 0x400000 + 64 + 2 * 56
FLAGS = (
    "-Os -ffreestanding -nostdlib -static -fno-pic -fno-pie -no-pie -fno-stack-protector "
    f"-fno-asynchronous-unwind-tables -fomit-frame-pointer -Wall -Wextra -Werror "
    f"-Wl,--build-id=none -Wl,-Ttext={TEXT:#x}"
).split()


def code_for(machine: str) -> bytes:
    """The machine code of stage.c for `machine`, to be placed at TEXT."""
    compiler = COMPILERS[machine]
    extra = ["-fcf-protection=none"] if machine == "x86_64" else ["-mno-outline-atomics"]
    with tempfile.TemporaryDirectory() as directory:
        elf, raw = f"{directory}/stage", f"{directory}/raw"
        subprocess.run([compiler, *FLAGS, *extra, "-o", elf, str(HERE / "stage.c")], check=True)
        objcopy = compiler.replace("gcc", "objcopy")
        subprocess.run([objcopy, "-O", "binary", "-j", ".text", elf, raw], check=True)
        return pathlib.Path(raw).read_bytes()


def main() -> None:
    """Write stage_code.py."""
    lines = [
        '"""Machine code of contrib/stage/stage.c, by architecture; made by `make stage`, not to be edited."""',
        "",
        "CODE = {",
    ]
    for machine in COMPILERS:
        code = code_for(machine).hex()
        lines.append(f'    "{machine}": (')
        lines += [f'        "{code[i : i + 96]}"' for i in range(0, len(code), 96)]
        lines.append("    ),")
    lines.append("}")
    TARGET.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
