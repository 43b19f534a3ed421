//! Adapters between Socket.IO servers: the local bus that joins the workers of one app on one host.
