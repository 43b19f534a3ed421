//! The two requests of a polling session: the poll and the body.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::{Either, select};
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as HttpBody;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::now;
use super::reply;
use super::shared::{Posted, Shared, State};
use crate::Body;
use crate::proto::dialect::Answer;
use crate::proto::encoding::Encoding;
use crate::proto::packet::{Packet, PacketError};
use crate::proto::payload::Packets;
use crate::proto::request::ErrorCode;
use crate::proto::session::Refused;

/// How much of a body that is too large is read and forgotten, in units of the limit, so that the client gets to
/// read the answer instead of a reset connection.
const FORGOTTEN: usize = 4;

/// Ends the session if the request it belongs to is dropped: the client has gone.
struct Guard<'a> {
    shared: &'a Arc<Shared>,
    post: bool,
    done: bool,
}

impl<'a> Guard<'a> {
    fn new(shared: &'a Arc<Shared>, post: bool) -> Guard<'a> {
        Guard { shared, post, done: false }
    }

    fn done(mut self) {
        self.done = true;
        if self.post {
            self.shared.act(|state| state.machine.post_done());
        }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.done {
            let post = self.post;
            self.shared
                .act(|state| if post { state.machine.post_failed() } else { state.machine.get_lost() });
        }
    }
}

/// A request with a session that is not served.
#[derive(Debug)]
pub(crate) struct Refusal {
    why: &'static str,
    answer: fn() -> Response<Body>,
}

impl Refusal {
    pub(crate) fn new(why: &'static str, answer: fn() -> Response<Body>) -> Refusal {
        Refusal { why, answer }
    }

    /// Counts it and tells of it. What is left is the answer.
    pub(crate) fn told(self, shared: &Shared, peer: Option<SocketAddr>) -> Response<Body> {
        shared.registry().counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(?peer, reason = self.why, "a request of a session is refused");
        (self.answer)()
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        match refused {
            Refused::Unknown => {
                Refusal::new("its session is over", || reply::error(ErrorCode::UnknownSid, None))
            }
            Refused::WrongTransport => {
                Refusal::new("its session has left polling", || reply::error(ErrorCode::BadRequest, None))
            }
            Refused::Overlap => Refusal::new("another of its kind is under way: the session ends", bad),
        }
    }
}

fn bad() -> Response<Body> {
    reply::status(StatusCode::BAD_REQUEST)
}

/// A poll: answered when there is something to say.
pub(crate) async fn get(shared: &Arc<Shared>, taken: Option<Encoding>) -> Result<Response<Body>, Refusal> {
    shared.probe_caught_up().await;
    let (sender, answer) = oneshot::channel();
    shared.act(|state| {
        state.machine.get_opened()?;
        state.get = Some(sender);
        Ok::<_, Refused>(())
    })?;
    wait(shared, answer, taken).await
}

/// The encoding the client of a poll takes.
pub(crate) fn taken(headers: &HeaderMap) -> Option<Encoding> {
    Encoding::best(headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()))
}

/// Waits for the answer of a poll.
async fn wait(
    shared: &Arc<Shared>,
    answer: oneshot::Receiver<Answer>,
    taken: Option<Encoding>,
) -> Result<Response<Body>, Refusal> {
    let guard = Guard::new(shared, false);
    // An error: the session's task is gone without a word.
    let answer = answer.await.map_err(|_| Refused::Unknown)?;
    guard.done();
    Ok(respond(shared, answer, taken))
}

/// The answer of a poll that need not wait.
pub(crate) fn answer_now(shared: &Arc<Shared>, taken: Option<Encoding>) -> Result<Response<Body>, Refusal> {
    let answer = shared.act(|state| state.machine.poll_get()).ok_or(Refused::Unknown)?;
    Ok(respond(shared, answer, taken))
}

fn respond(shared: &Shared, answer: Answer, taken: Option<Encoding>) -> Response<Body> {
    let options = shared.registry().config.http_compression;
    let options = options.filter(|options| answer.compress && answer.body.len() >= options.threshold);
    reply::packets(answer, taken.zip(options.map(|options| options.level)))
}

/// What is known of a body before it is read.
#[derive(Clone, Copy)]
pub(crate) struct PostFacts {
    /// Whose it is.
    peer: Option<SocketAddr>,
    octets: bool,
    /// Its length, where it is known.
    announced: Option<u64>,
}

impl PostFacts {
    pub(crate) fn of(headers: &HeaderMap, peer: Option<SocketAddr>) -> PostFacts {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        PostFacts {
            peer,
            octets: headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream"),
            announced: length.and_then(|length| length.parse().ok()),
        }
    }
}

/// A body with packets of the client.
pub(crate) async fn post<B>(
    shared: &Arc<Shared>,
    facts: PostFacts,
    body: B,
) -> Result<Response<Body>, Refusal>
where
    B: HttpBody + Send,
    B::Data: Send,
{
    shared.act(|state| state.machine.post_opened())?;
    let guard = Guard::new(shared, true);
    let dialect = shared.look(|state| state.machine.dialect());
    // Version 4 sends binary as base64; dropping the guard ends the session.
    if facts.octets && !dialect.takes_octets() {
        return Err(Refusal::new("a body of bytes, which version 4 has not: the session ends", bad));
    }
    let max = shared.registry().config.max_payload;
    let mut body = pin!(body);
    let mut read = pin!(read(body.as_mut(), max, facts.announced));
    // Nearly always it is there as a whole.
    let read = match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
        Poll::Ready(read) => read,
        // The heartbeat bounds what comes slowly: no pong gets past it.
        Poll::Pending => match select(read, Box::pin(shared.gone())).await {
            Either::Left((read, _)) => read,
            Either::Right(((), _)) => return Err(Refused::Unknown.into()),
        },
    };
    let body = match read {
        Ok(Some(body)) => body,
        Ok(None) => {
            guard.done();
            return Err(Refusal::new("a body larger than max_payload", reply::too_large));
        }
        Err(Incomplete) => {
            return Err(Refusal::new("the client went away in the middle of its body", bad));
        }
    };
    let packets = dialect.read(body, facts.octets);
    if let Err(error) = &packets {
        tracing::debug!(peer = ?facts.peer, %error, "a body that cannot be read");
    }
    let leaves = packets.as_ref().is_ok_and(|packets| packets.single_control() == Some(Packet::Close));
    if leaves && !shared.look(|state| state.machine.has_get()) {
        // The last poll may have come first, on another connection: it has its answer then.
        yield_now().await;
    }
    let brought = shared.act(|state| bring(state, packets));
    let answer = match brought {
        Ok(taken) => {
            if let Some(taken) = taken {
                shared.wake_task();
                // The answer waits until the messages have been given on: this is how a client that sends too much is held
                // back. If the session ends meanwhile, there is nothing to wait for.
                let _ = taken.await;
            }
            Ok(reply::ok())
        }
        Err(refused) => Err(refused.into()),
    };
    guard.done();
    answer
}

/// Gives the session what a body holds. What is returned completes when its task has worked it off, where that is its task's
/// part.
fn bring(
    state: &mut State,
    packets: Result<Packets, PacketError>,
) -> Result<Option<oneshot::Receiver<()>>, Refused> {
    // It ended while the body came in: its task may be gone, and nobody would take it.
    if state.machine.is_gone() {
        return Err(Refused::Unknown);
    }
    let Ok(packets) = packets else {
        state.machine.unreadable(now());
        return Ok(None);
    };
    if let Some(packet) = packets.single_control() {
        drop(state.machine.packet(packet, now));
        return Ok(None);
    }
    let (sender, taken) = oneshot::channel();
    state.inbox = Some(Posted { packets, taken: sender });
    Ok(Some(taken))
}

/// The client went away before the end of its body.
struct Incomplete;

/// Reads a body; `None` if it is larger than `max`.
async fn read<B>(
    mut body: Pin<&mut B>,
    max: usize,
    announced: Option<u64>,
) -> Result<Option<Bytes>, Incomplete>
where
    B: HttpBody,
{
    let mut whole = Bytes::new();
    let mut more = BytesMut::new();
    let mut length = 0;
    let too_large = announced.is_some_and(|announced| announced > max as u64);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(mut data) = frame.map_err(|_| Incomplete)?.into_data() else { continue };
        let size = data.remaining();
        length += size;
        if too_large || length > max {
            if length > max.saturating_mul(FORGOTTEN) {
                return Ok(None);
            }
        } else if whole.is_empty() && more.is_empty() {
            // Most bodies are one piece, which is not copied.
            whole = data.copy_to_bytes(size);
        } else {
            if more.is_empty() {
                more.extend_from_slice(&whole);
            }
            more.extend_from_slice(&data.copy_to_bytes(size));
        }
    }
    if too_large || length > max {
        return Ok(None);
    }
    Ok(Some(if more.is_empty() { whole } else { more.freeze() }))
}
