//! One client connection.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::accept::Counted;
use crate::backend::HandOff;
use crate::front::Shared;

pub(crate) fn refuse(stream: &TcpStream) {
    let _ = stream
        .try_write(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
}

pub(crate) async fn serve(_held: Counted, stream: TcpStream, _peer: Option<SocketAddr>) {
    refuse(&stream);
}

pub(crate) fn reroute(_shared: &Arc<Shared>, _connection: HandOff) {}
