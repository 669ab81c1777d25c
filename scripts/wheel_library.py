"""Checks the native library of a wheel: it asks for glibc only, shows one symbol, and is stripped.

    python scripts/wheel_library.py WHEEL     needs pyelftools

Whether its glibc is old enough is for auditwheel, which knows the symbols of each.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile

from elftools.elf.elffile import ELFFile

# The parts of glibc, by their names of every version.
GLIBC = re.compile(r"(ld-linux-[\w-]+|lib(c|m|dl|pthread|rt))\.so\.\d+")
FACE = ["PyInit__core"]


def complaints(library: ELFFile) -> list[str]:
    """Return what is wrong with the library, a line each."""
    needed = [tag.needed for tag in library.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
    shown = [
        symbol.name
        for symbol in library.get_section_by_name(".dynsym").iter_symbols()
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_other"]["visibility"] == "STV_DEFAULT"
    ]
    found = [f"needs {name}, which is not glibc's" for name in needed if not GLIBC.fullmatch(name)]
    if shown != FACE:
        found.append(f"shows {len(shown)} symbols, not only {FACE[0]}: {shown[:5]}")
    if library.get_section_by_name(".symtab") or library.get_section_by_name(".debug_info"):
        found.append("is not stripped")
    return found


def main() -> None:
    """Check the wheel named on the command line; exit with 1 if anything is wrong."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        names = [name for name in wheel.namelist() if ".so" in name.rsplit("/", 1)[-1]]
        if len(names) != 1 or not names[0].startswith("flexkv/_core."):
            sys.exit(f"wheel: its libraries should be flexkv/_core alone: {names}")
        wrong = complaints(ELFFile(io.BytesIO(wheel.read(names[0]))))
    if wrong:
        sys.exit("\n".join(f"wheel: {names[0]} {line}" for line in wrong))


if __name__ == "__main__":
    main()
