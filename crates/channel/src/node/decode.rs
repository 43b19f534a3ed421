//! Says what a frame from a worker means. A frame that cannot be read is somebody else's message, never an error: an
//! app may send whatever it likes.

use bytes::Bytes;

use super::fields::{Body, Fields};
use super::json;
use super::message::{AddressType, FromWorker, Query, Requester, Serialization};
use super::v8::{Malformed, Reader, Scalar};

/// The `source` of every message of `@socket.io/cluster-adapter`.
pub(super) const ADAPTER: &str = "_sio_adapter";

/// `frame` with what delimits it.
pub(super) fn decode(serialization: Serialization, frame: Bytes) -> FromWorker {
    let body = match serialization {
        Serialization::Advanced => read_v8(&frame[frame.len().min(4)..]),
        Serialization::Json => {
            let line = frame.strip_suffix(b"\n").unwrap_or(&frame);
            json::read(line).map_err(|error| {
                tracing::warn!(%error, size = frame.len(), "a Node worker sent a message that is not JSON");
            })
        }
    };
    match body {
        Ok(Body::Scalar(Scalar::Text(text))) if text == "ready" => FromWorker::Ready,
        Ok(Body::Object(fields)) => meaning(&fields, &frame),
        Ok(Body::Scalar(_)) | Err(()) => FromWorker::Other,
    }
}

fn read_v8(bytes: &[u8]) -> Result<Body<'_>, ()> {
    let mut fields = Box::<Fields<'_>>::default();
    let read = Reader::new(bytes).and_then(|mut reader| {
        if !reader.enter_object()? {
            return reader.scalar().map(Some);
        }
        read_v8_fields(&mut reader, &mut fields)?;
        Ok(None)
    });
    match read {
        Ok(Some(scalar)) => Ok(Body::Scalar(scalar)),
        Ok(None) => Ok(Body::Object(fields)),
        Err(error) => {
            tracing::warn!(%error, size = bytes.len(), "a Node worker sent a message that cannot be read");
            // Node waits for the confirmation of a descriptor, whatever it came with. Its name is written first.
            let descriptor = fields.cmd.text() == Some("NODE_HANDLE");
            if descriptor { Ok(Body::Object(fields)) } else { Err(()) }
        }
    }
}

fn read_v8_fields<'a>(reader: &mut Reader<'a>, fields: &mut Fields<'a>) -> Result<(), Malformed> {
    while let Some(name) = reader.key()? {
        if name == "data" {
            if !reader.enter_object()? {
                reader.skip()?;
                continue;
            }
            fields.data_given = true;
            while let Some(name) = reader.key()? {
                match fields.data_slot(&name) {
                    Some(slot) => *slot = reader.scalar()?,
                    None => reader.skip()?,
                }
            }
        } else if let Some(slot) = fields.slot(&name) {
            *slot = reader.scalar()?;
        } else {
            reader.skip()?;
        }
    }
    Ok(())
}

fn meaning(fields: &Fields<'_>, frame: &Bytes) -> FromWorker {
    let known = match fields.cmd.text() {
        Some("NODE_CLUSTER") => cluster(fields),
        Some("NODE_HANDLE") => Some(FromWorker::Handle),
        // Which one is confirmed, the outbox knows.
        Some("NODE_HANDLE_ACK") => Some(FromWorker::HandleAck { seq: None }),
        Some("NODE_HANDLE_NACK") => Some(FromWorker::HandleNack { seq: None }),
        Some("NODE_SUNDEW") => preload(fields),
        _ if fields.source.text() == Some(ADAPTER) => adapter(fields, frame),
        _ => None,
    };
    known.unwrap_or(FromWorker::Other)
}

fn cluster(fields: &Fields<'_>) -> Option<FromWorker> {
    if let Some(seq) = fields.ack.unsigned() {
        return Some(FromWorker::Accepted { seq, accepted: fields.accepted.is_true() });
    }
    Some(match fields.act.text()? {
        "online" => FromWorker::Online,
        "queryServer" => FromWorker::QueryServer { seq: fields.seq.unsigned()?, query: query(fields) },
        "listening" => FromWorker::Listening(query(fields)),
        "close" => FromWorker::Close { key: fields.key.owned()? },
        "exitedAfterDisconnect" => FromWorker::ExitedAfterDisconnect { seq: fields.seq.unsigned()? },
        _ => return None,
    })
}

fn query(fields: &Fields<'_>) -> Query {
    let fd = fields.fd.integer().filter(|&fd| fd >= 0);
    let address_type = match (&fields.address_type, fields.address_type.integer()) {
        (_, Some(4)) => AddressType::Tcp4,
        (_, Some(6)) => AddressType::Tcp6,
        (_, Some(-1)) => AddressType::Pipe,
        (Scalar::Text(text), _) if text == "udp4" => AddressType::Udp4,
        (Scalar::Text(text), _) if text == "udp6" => AddressType::Udp6,
        _ if fd.is_some() => AddressType::Fd,
        _ => AddressType::Unknown,
    };
    Query {
        address: fields.address.owned(),
        port: fields.port.port(),
        address_type,
        fd,
        index: fields.index.integer().unwrap_or_default(),
        backlog: fields.backlog.integer().unwrap_or_default(),
        ticket_keys: fields.ticket_keys.owned(),
        data_given: fields.data_given,
        flags: fields.flags.integer().unwrap_or_default(),
    }
}

fn preload(fields: &Fields<'_>) -> Option<FromWorker> {
    Some(match fields.act.text()? {
        "serves" => FromWorker::Serves {
            http: fields.http.is_true(),
            server: fields.server.unsigned().and_then(|server| u32::try_from(server).ok()),
        },
        "sticky" => FromWorker::Sticky,
        "closed" => FromWorker::Closed { total: fields.total.unsigned()? },
        _ => return None,
    })
}

fn adapter(fields: &Fields<'_>, frame: &Bytes) -> Option<FromWorker> {
    let kind = u32::try_from(fields.kind.integer()?).ok()?;
    let uid = fields.uid.owned();
    let requester = match fields.requester_uid.text() {
        Some(uid) => Some(Requester::Uid(uid.to_owned())),
        // Adapter 0.2 names the asking worker in the question too, where everybody else is meant.
        None if uid.is_none() && matches!(kind, V2_FETCH_SOCKETS_RESPONSE | V2_SERVER_SIDE_EMIT_RESPONSE) => {
            fields.worker_id.unsigned().map(Requester::Worker)
        }
        None => None,
    };
    let nsp = fields.nsp.owned();
    Some(FromWorker::Adapter { kind, uid, nsp, requester, frame: frame.clone() })
}

/// Types of adapter 0.2 that answer one worker.
const V2_FETCH_SOCKETS_RESPONSE: u32 = 9;
const V2_SERVER_SIDE_EMIT_RESPONSE: u32 = 11;
