//! One worker's connection, however it arrived: accepted, handed over by the supervisor, or a leg of its proxy.
