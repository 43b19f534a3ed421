//! Socket.IO server over Engine.IO: namespaces, rooms, acks, middleware and the adapter trait.
