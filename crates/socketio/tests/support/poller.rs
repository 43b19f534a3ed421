//! A client that polls, each request on a connection of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::http;

pub struct Poller {
    addr: SocketAddr,
    /// With the session's id.
    path: String,
    /// What has come and was not asked for yet.
    packets: VecDeque<String>,
}

impl Poller {
    /// Opens the engine session.
    pub fn open(addr: SocketAddr) -> Poller {
        let path = "/socket.io/?EIO=4&transport=polling";
        let mut poller = Poller { addr, path: path.into(), packets: VecDeque::new() };
        let open = poller.text();
        let open: serde_json::Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
        poller.path = format!("{path}&sid={}", open["sid"].as_str().unwrap());
        poller
    }

    /// Sends engine packets, in one request.
    pub fn send(&mut self, packets: &[&str]) {
        let (status, _, body) = http(self.addr, "POST", &self.path, "", &packets.join("\u{1e}"));
        assert_eq!((status, &*body), (200, "ok"));
    }

    /// The next packet; pings are answered and left out.
    pub fn text(&mut self) -> String {
        loop {
            match self.packets.pop_front() {
                Some(packet) if packet == "2" => self.send(&["3"]),
                Some(packet) => return packet,
                None => {
                    let (status, _, body) = http(self.addr, "GET", &self.path, "", "");
                    assert_eq!(status, 200, "{body}");
                    self.packets.extend(body.split('\u{1e}').map(str::to_owned));
                }
            }
        }
    }

    pub fn expect(&mut self, text: &str) {
        assert_eq!(self.text(), text);
    }
}
