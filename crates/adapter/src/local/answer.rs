//! Answers a request of another worker: what the server yields, as it comes, and then the end, good or bad.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use sundew_socketio::adapter::{Response, Responses, SocketInfo};
use tokio::sync::OwnedSemaphorePermit;

use super::link::{Link, Refused};
use super::wire::{self, WireError};

/// About how long a frame of sockets may become, so that others are sent between them. One socket is never cut.
const PART: usize = 1 << 20;

/// Why not all answers were sent.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Server(#[from] sundew_socketio::adapter::AdapterError),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("its answer waited for {0:?} to be read")]
    Unread(Duration),
    #[error("the link has ended")]
    Closed,
}

/// Sends all `answers`, within the time the asking side gives them. The permit is held until the last one.
pub(super) async fn send(
    link: Arc<Link>,
    id: u64,
    answers: Responses,
    timeout: Duration,
    _permit: OwnedSemaphorePermit,
) {
    match send_all(&link, id, answers, timeout).await {
        Ok(()) => done(&link, id),
        Err(Failure::Closed) => {}
        Err(error) => {
            tracing::warn!(peer = %link.peer, %error, "an answer could not be sent");
            failed(&link, id, &error.to_string());
        }
    }
}

async fn send_all(link: &Link, id: u64, mut answers: Responses, timeout: Duration) -> Result<(), Failure> {
    let mut limit = pin!(tokio::time::sleep(timeout));
    while let Some(answer) = answers.next().await {
        for frame in frames(id, answer?) {
            let frame = frame?;
            let sent = tokio::select! {
                biased;
                sent = link.send_in_turn(frame.clone()) => sent,
                // Counted as dropped, if there is still no room.
                () = &mut limit => link.send(frame),
            };
            match sent {
                Ok(()) => {}
                Err(Refused::Full) => return Err(Failure::Unread(timeout)),
                Err(Refused::Closed) => return Err(Failure::Closed),
            }
        }
    }
    Ok(())
}

/// One answer's frames: several for sockets that would not go into one.
fn frames(id: u64, response: Response) -> impl Iterator<Item = Result<Bytes, WireError>> {
    let parts: Box<dyn Iterator<Item = Response> + Send> = match response {
        Response::Sockets(sockets) if !sockets.is_empty() => Box::new(parts(sockets).map(Response::Sockets)),
        response => Box::new(std::iter::once(response)),
    };
    parts.map(move |part| wire::answer(id, part))
}

fn parts(sockets: Vec<SocketInfo>) -> impl Iterator<Item = Vec<SocketInfo>> {
    let mut rest = sockets.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut part = vec![rest.next()?];
        let mut length = part.iter().map(written).sum::<usize>();
        while let Some(socket) = rest.next_if(|next| {
            length += written(next);
            length <= PART
        }) {
            part.push(socket);
        }
        Some(part)
    })
}

/// How long a socket is in a frame.
fn written(socket: &SocketInfo) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be written fails when its frame is made.
    let _ = serde_json::to_writer(&mut count, socket);
    count.0
}

/// Says that there is no more. When not even a note is taken this is lost, and the asking side names this worker in its timeout.
pub(super) fn done(link: &Link, id: u64) {
    if let Ok(frame) = wire::done(id) {
        let _ = link.note(frame);
    }
}

/// Says that there is no more, and that it was not all.
fn failed(link: &Link, id: u64, why: &str) {
    if let Ok(frame) = wire::failed(id, why) {
        let _ = link.note(frame);
    }
}
