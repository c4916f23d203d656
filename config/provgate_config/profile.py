"""The profile of a clone: the configuration file that `make up` leaves there, for whoever names no other."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

# Below the clone.
_STACKS: Final = ".stack"
_STACK: Final = "up"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def profile_name() -> str:
    """Returns the name of a profile's file in the directory of its stack.

    The kernel draws a boot id whenever it boots. No stack outlives that, and so does no profile; nor can a repository
    or an archive bring a profile along.

    Raises:
        OSError: this system has no boot id.
    """
    return f"profile-{_BOOT_ID.read_text(encoding='ascii').strip()}.yml"


def find_profile() -> tuple[Path | None, str | None]:
    """Looks for a profile in the working directory and all directories above it, and stops at the first.

    A profile decides where facts are written to: it counts if it and its directories are the user's, and nobody else
    may change them.

    Returns:
        The profile, and why one that is there does not count.
    """
    try:
        name, working_directory = profile_name(), Path.cwd()
    except OSError:
        # Not Linux, or a directory that was removed.
        return None, None
    for clone in (working_directory, *working_directory.parents):
        stack = clone / _STACKS / _STACK
        profile = stack / name
        if not os.path.lexists(stack):
            # Or it may not be seen.
            continue
        try:
            found = [path.lstat() for path in (stack.parent, stack, profile)]
        except FileNotFoundError:
            continue
        except OSError:
            return None, f"{stack} is not used: it belongs to somebody else"
        if any(each.st_uid != os.geteuid() or stat.S_ISLNK(each.st_mode) for each in found):
            return None, f"{profile} is not used: it, or a directory that it is in, belongs to somebody else"
        if any(each.st_mode & 0o077 for each in found[1:]):
            return None, f"{profile} is not used: others may read or change it"
        return profile, None
    return None, None
