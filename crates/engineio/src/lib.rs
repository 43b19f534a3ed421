//! Engine.IO server: a sans-IO protocol core (proto) and the server that drives it.
