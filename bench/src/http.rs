//! HTTP/1.1 as browsers use it: a few connections to one server, shared by whoever has a request.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

/// As many connections as browsers open to one server.
pub(crate) const BROWSER_CONNECTIONS: usize = 6;

/// A TCP connection from the given address of ours.
pub(crate) async fn connect(server: SocketAddr, source: IpAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A browser's connections to a server.
pub(crate) struct Pool {
    pub(crate) server: SocketAddr,
    pub(crate) source: IpAddr,
    keep_alive: bool,
    room: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Pool {
    /// `keep_alive`: connections are used again and shared; else each request has its own.
    pub(crate) fn new(server: SocketAddr, source: IpAddr, connections: usize, keep_alive: bool) -> Self {
        Self { server, source, keep_alive, room: Semaphore::new(connections), idle: Mutex::default() }
    }

    /// One request, on the connection that was used last if one is free.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> anyhow::Result<Response> {
        let bytes = self.head(method, path, body);
        let _room = self.room.acquire().await?;
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(connection) = kept
            && let Some(response) = self.exchange(connection, &bytes).await?
        {
            return Ok(response);
        }
        // Nothing was kept, or the server had closed it meanwhile: browsers then ask again on a new one.
        let stream = connect(self.server, self.source).await.context("connect")?;
        let connection = Connection { stream, input: Vec::with_capacity(2048) };
        self.exchange(connection, &bytes).await?.context("closed without an answer")
    }

    async fn exchange(&self, mut connection: Connection, bytes: &[u8]) -> anyhow::Result<Option<Response>> {
        let Some((response, keep)) = connection.exchange(bytes).await? else { return Ok(None) };
        if keep && self.keep_alive {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Ok(Some(response))
    }

    fn head(&self, method: &str, path: &str, body: Option<&str>) -> Vec<u8> {
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let server = self.server;
        let mut bytes = format!(
            "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: {connection}\r\nAccept: */*\r\n\
             User-Agent: bench\r\n"
        );
        if let Some(body) = body {
            bytes += "Content-Type: text/plain;charset=UTF-8\r\nContent-Length: ";
            bytes += &body.len().to_string();
            bytes += "\r\n\r\n";
            bytes += body;
        } else {
            bytes += "\r\n";
        }
        bytes.into_bytes()
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Connection {
    /// None: the connection was over before the first byte of an answer.
    async fn exchange(&mut self, bytes: &[u8]) -> anyhow::Result<Option<(Response, bool)>> {
        if self.stream.write_all(bytes).await.is_err() {
            return Ok(None);
        }
        loop {
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) if self.input.is_empty() => return Ok(None),
                Ok(0) => bail!("closed within an answer"),
                Ok(_) => {}
                Err(error) => return Err(error).context("within an answer"),
            }
            if let Some((response, keep, length)) = parse(&self.input)? {
                ensure!(self.input.len() == length, "more than the answer arrived");
                self.input.clear();
                return Ok(Some((response, keep)));
            }
        }
    }
}

/// The answer, whether the connection stays, and how long it was; None while incomplete.
fn parse(input: &[u8]) -> anyhow::Result<Option<(Response, bool, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(input)? else { return Ok(None) };
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
    };
    let rest = &input[start..];
    let (body, length) = if let Some(length) = header("content-length") {
        let length = length.parse::<usize>().context("Content-Length")?;
        let Some(body) = rest.get(..length) else { return Ok(None) };
        (body.to_vec(), length)
    } else {
        ensure!(header("transfer-encoding").is_some(), "an answer without a length");
        let Some(chunks) = chunks(rest)? else { return Ok(None) };
        chunks
    };
    let status = head.code.unwrap_or_default();
    let keep = header("connection").is_none_or(|value| value != "close");
    let body = String::from_utf8(body).context("the body is not text")?;
    Ok(Some((Response { status, body }, keep, start + length)))
}

fn chunks(input: &[u8]) -> anyhow::Result<Option<(Vec<u8>, usize)>> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let httparse::Status::Complete((line, size)) =
            httparse::parse_chunk_size(&input[at..]).map_err(|_| anyhow::anyhow!("a broken chunk"))?
        else {
            return Ok(None);
        };
        let start = at + line;
        let end = start + size as usize;
        if input.len() < end + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&input[start..end]);
        at = end + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(input: &str) -> Option<(String, bool)> {
        parse(input.as_bytes()).expect("well-formed").map(|(response, keep, length)| {
            assert_eq!(length, input.len());
            (response.body, keep)
        })
    }

    #[test]
    fn an_answer_is_complete_at_its_last_byte_only() {
        for whole in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ] {
            for end in 0..whole.len() {
                assert!(complete(&whole[..end]).is_none(), "{:?}", &whole[..end]);
            }
            assert_eq!(complete(whole), Some(("abc".to_owned(), true)));
        }
    }

    #[test]
    fn close_is_seen() {
        let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(complete(answer), Some((String::new(), false)));
    }
}
