"""Builds the sdist and the wheel, the same bytes from the same sources, and writes what they are made of.

    python requirements/release.py DIST

The time in the archives is that of the last commit (SOURCE_DATE_EPOCH), or what the environment says. The bill of
materials is CycloneDX 1.5 in JSON: this package, and each locked package that a plain install or an extra of users
brings, with its hashes.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
LOCK: Final = ROOT / "requirements" / "release.txt"
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*([^\\]+?))?\s*\\?$")
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def locked(lock: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Read a lock: name, version, marker (empty for none) and SHA-256 hashes of each package."""
    found: tuple[str, str, str, list[str]] | None = None
    for line in lock.read_text(encoding="utf-8").splitlines():
        if head := _PINNED.match(line):
            if found is not None:
                yield found
            found = head[1], head[2], head[3] or "", []
        elif found is not None:
            found[3].extend(_HASH.findall(line))
    if found is not None:
        yield found


def epoch() -> int:
    """Return the time that the archives bear, in seconds."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def build(dist: Path, at: int) -> list[Path]:
    """Build both archives, with what is installed here."""
    before = set(dist.glob("*"))
    for old in before:
        if old.name.endswith((".whl", ".tar.gz", ".cdx.json")):
            old.unlink()
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(dist)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "SOURCE_DATE_EPOCH": str(at)})
    return sorted([*dist.glob("*.whl"), *dist.glob("*.tar.gz")])


def materials(archives: list[Path], lock: Path, at: int) -> dict[str, Any]:
    """Return the bill of materials."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = archives[0].name.removeprefix("asyncjobs_nats-").removesuffix(".tar.gz")
    version = version.partition("-")[0]
    components = []
    for name, pinned, marker, hashes in locked(lock):
        purl = f"pkg:pypi/{name}@{pinned}"
        components.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": pinned,
                "purl": purl,
                "properties": [{"name": "python:marker", "value": marker}] if marker else [],
                # Of all its files, since each platform has another one; of one file each.
                "externalReferences": [
                    {
                        "type": "distribution",
                        "url": f"{purl}#sha256={each}",
                        "hashes": [{"alg": "SHA-256", "content": each}],
                    }
                    for each in hashes
                ],
            }
        )
    own = f"pkg:pypi/{project['name']}@{version}"
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in archives}
    seed = own + "".join(digests.values()) + "".join(str(each["purl"]) for each in components)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, seed)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z"),
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": project["name"],
                "version": version,
                "purl": own,
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "externalReferences": [
                    {
                        "type": "distribution",
                        "url": name,
                        "hashes": [{"alg": "SHA-256", "content": content}],
                    }
                    for name, content in digests.items()
                ],
            },
        },
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": [each["purl"] for each in components]}],
    }


def main() -> int:
    """Build, and say what was built."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python requirements/release.py DIST\n")
        return 2
    dist = Path(sys.argv[1])
    dist.mkdir(parents=True, exist_ok=True)
    at = epoch()
    archives = build(dist.resolve(), at)
    bill = dist / f"{archives[0].name.removesuffix('.tar.gz').partition('-py3')[0]}.cdx.json"
    bill.write_text(json.dumps(materials(archives, LOCK, at), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in [*archives, bill]:
        sys.stdout.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
