//! The channel between supervisor and worker: framed messages and file descriptors on one socket pair.
