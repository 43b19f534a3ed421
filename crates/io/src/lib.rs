//! One worker's connection, however it arrived: accepted, handed over by the supervisor, or a leg of its proxy.
//!
//! Two things live here: [`Conn`], the stream a server loop drives or gives to hyper, and the ways to take the raw stream back
//! out after an HTTP upgrade ([`recover`] from hyper, [`TakeOver`] from a loop of our own), so that a live session owns its
//! file descriptor (and can write without a lock, or be exported). No protocol and no policy may live here.

mod conn;
mod hold;
mod recover;
mod stall;
mod takeover;

pub use conn::{Conn, Origin, PeerAddr};
pub use hold::HoldHead;
pub use recover::{AsyncReadWrite, Raw, Recovered, recover};
pub use takeover::{Life, TakeOver};
