//! Which peers are proxies whose word about a client's address counts. No request is read here.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

/// The loopback addresses.
const LOOPBACK: &[&str] = &["127.0.0.0/8", "::1/128"];
/// What no packet from the internet comes from (RFC 1918, RFC 4193).
const PRIVATE: &[&str] = &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// The proxies that are believed. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    nets: Arc<[IpNet]>,
    /// Who connects to a listening unix socket: its folder's permissions say who may.
    unix: bool,
}

/// An entry of the list of trusted proxies that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no trusted proxy: write an address, a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", \"loopback\", \"private\" or \"unix\""
)]
pub struct BadProxy(pub String);

impl TrustedProxies {
    /// Reads a list of addresses, networks (`10.0.0.0/8`) and the words `loopback`, `private` and `unix`.
    ///
    /// # Errors
    /// Names the first entry that is none of these.
    pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Self, BadProxy> {
        let (mut nets, mut unix) = (Vec::new(), false);
        for entry in entries {
            let entry = entry.as_ref();
            match entry {
                "loopback" => read(LOOPBACK, &mut nets)?,
                "private" => read(PRIVATE, &mut nets)?,
                "unix" => unix = true,
                _ => read(&[entry], &mut nets)?,
            }
        }
        Ok(Self { nets: nets.into(), unix })
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty() && !self.unix
    }

    /// Whether this peer is one. None: it came through a unix socket.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        let Some(ip) = peer else { return self.unix };
        let ip = ip.to_canonical();
        self.nets.iter().any(|net| net.contains(&ip))
    }
}

fn read(entries: &[&str], nets: &mut Vec<IpNet>) -> Result<(), BadProxy> {
    for entry in entries {
        let net = entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
        nets.push(canonical(net.map_err(|_| BadProxy((*entry).to_owned()))?));
    }
    Ok(())
}

/// IPv4 written as IPv6 as IPv4, as clients' addresses are.
fn canonical(net: IpNet) -> IpNet {
    match (net, net.addr().to_canonical()) {
        (IpNet::V6(v6), IpAddr::V4(v4)) if v6.prefix_len() >= 96 => {
            Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(net, IpNet::V4)
        }
        _ => net,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusts(entries: &[&str], peer: &str) -> bool {
        TrustedProxies::parse(entries).unwrap().contains(Some(peer.parse().unwrap()))
    }

    #[test]
    fn networks_addresses_and_words() {
        assert!(trusts(&["10.0.0.0/8"], "10.1.2.3"));
        assert!(trusts(&["10.0.0.0/8"], "::ffff:10.1.2.3"), "as a socket of both families tells it");
        assert!(trusts(&["::ffff:10.0.0.0/104"], "10.1.2.3"));
        assert!(!trusts(&["10.0.0.0/8"], "11.1.2.3"));
        assert!(trusts(&["2001:db8::/32"], "2001:db8:1::5"));
        assert!(trusts(&["192.0.2.7"], "192.0.2.7") && !trusts(&["192.0.2.7"], "192.0.2.8"));
        assert!(trusts(&["loopback"], "127.9.9.9") && trusts(&["loopback"], "::1"));
        assert!(trusts(&["private"], "172.31.0.1") && !trusts(&["private"], "172.32.0.1"));
        assert!(trusts(&["private"], "fd00::1") && !trusts(&["private"], "127.0.0.1"));
        assert!(trusts(&["0.0.0.0/0"], "8.8.8.8") && !trusts(&["0.0.0.0/0"], "2001:db8::1"));
    }

    #[test]
    fn unix_sockets_are_trusted_only_where_said() {
        assert!(!TrustedProxies::parse(&["0.0.0.0/0", "::/0"]).unwrap().contains(None));
        assert!(TrustedProxies::parse(&["unix"]).unwrap().contains(None));
        assert!(TrustedProxies::default().is_empty());
    }

    #[test]
    fn what_is_none_is_named() {
        for bad in ["10.0.0.0/33", "localhost", "10.0.0", "", "10.0.0.1:80", "2001:db8::/129"] {
            assert_eq!(TrustedProxies::parse(&["loopback", bad]), Err(BadProxy(bad.to_owned())));
        }
    }
}
