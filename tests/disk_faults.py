"""A disk that can be made to fail: a small library, built with gcc, that is loaded into a daemon before the C library."""

import shutil
import subprocess
from pathlib import Path

from tests.conftest import missing

SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int asked_for(const char *fault) {
    char path[4096];
    const char *folder = getenv("DISK_FAULTS");
    if (folder == NULL) return 0;
    snprintf(path, sizeof path, "%s/%s", folder, fault);
    return access(path, F_OK) == 0;
}

static int of_store(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "/store.db") != NULL;
}

static int failed(int error) { errno = error; return -1; }

static int sync_by(long call, int fd) {
    if (asked_for("slow")) usleep(10000);
    return asked_for("sync") ? failed(EIO) : (int)syscall(call, fd);
}

int fsync(int fd) { return sync_by(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
    if (of_store(fd) && asked_for("readonly")) return failed(EROFS);
    return of_store(fd) && asked_for("full") ? failed(ENOSPC) : syscall(SYS_pwrite64, fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
"""


class DiskFaults:
    """`env` is for the daemon. Only its store finds the disk full."""

    def __init__(self, home: Path) -> None:
        if shutil.which("gcc") is None:
            missing("gcc")
        self._folder = home / "faults"
        self._folder.mkdir()
        library = self._folder / "faults.so"
        command = ["gcc", "-shared", "-fPIC", "-O1", "-x", "c", "-o", str(library), "-"]
        subprocess.run(command, input=SOURCE, text=True, check=True, timeout=60)
        self.env = {"LD_PRELOAD": str(library), "DISK_FAULTS": str(self._folder)}

    def fail_sync(self, on: bool) -> None:
        """fsync and fdatasync answer EIO."""
        self._switch("sync", on)

    def fill(self, on: bool) -> None:
        """Writing to the store answers ENOSPC."""
        self._switch("full", on)

    def make_read_only(self, on: bool) -> None:
        """Writing to the store answers EROFS, as on a file system that the kernel has taken out of service."""
        self._switch("readonly", on)

    def slow_down(self, on: bool) -> None:
        """fsync and fdatasync take 10 ms longer."""
        self._switch("slow", on)

    def _switch(self, fault: str, on: bool) -> None:
        switch = self._folder / fault
        if on:
            switch.touch()
        else:
            switch.unlink()
