//! Socket.IO on every core: the one crate an app depends on.
