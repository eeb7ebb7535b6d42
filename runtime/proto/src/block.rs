//! Block devices: information, sessions, buffers, partition endpoints.
