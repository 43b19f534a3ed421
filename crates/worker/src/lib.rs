//! The app's side of the channel: the listener, the serve loop, readiness, drain and shutdown.
