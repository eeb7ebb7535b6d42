//! Files and directories by path, open files, mounts.
