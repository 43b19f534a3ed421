//! Several apps at one address: each request goes to the app whose host and path it names. Which app that is, is looked
//! up before anything of the request is routed, and for each request anew: a browser sends those of several hosts over
//! one connection if the address is the same, and a proxy those of all.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::front::{Front, Shared};
use crate::http::request::Head;

/// Where at an address an app is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Its hosts, in lower case and without a port: names, or `*.` and a name for all names below that. Empty: any.
    pub hosts: Vec<String>,
    /// What its paths begin with, as whole segments: `/chat` is for `/chat` and `/chat/x`. Empty: any.
    pub prefixes: Vec<String>,
}

/// An address that apps may share. Cheap to clone.
#[derive(Clone, Default)]
pub struct Site(Arc<Inner>);

#[derive(Default)]
struct Inner {
    apps: RwLock<Vec<(Place, Arc<Shared>)>>,
    /// There is something to choose. Until then nothing is looked at.
    chooses: AtomicBool,
}

/// Whose a request is.
pub(crate) enum Whose {
    /// Where it was going anyway.
    Here,
    There(Arc<Shared>),
    /// The host is here, and no app has the path.
    NoPath,
    NoHost,
}

impl Place {
    fn takes_all(&self) -> bool {
        self.hosts.is_empty() && self.prefixes.is_empty()
    }

    /// How well a host fits: not at all, to any, to one of these, to this very one. Longer is better.
    fn host(&self, host: &[u8]) -> Option<usize> {
        if self.hosts.is_empty() {
            return Some(0);
        }
        let fits = |pattern: &String| {
            let pattern = pattern.as_bytes();
            match pattern.strip_prefix(b"*") {
                Some(end) if host.len() > end.len() => {
                    host[host.len() - end.len()..].eq_ignore_ascii_case(end).then_some(1 + end.len())
                }
                Some(_) => None,
                None => host.eq_ignore_ascii_case(pattern).then_some(usize::MAX),
            }
        };
        self.hosts.iter().filter_map(fits).max()
    }

    fn prefix(&self, path: &[u8]) -> Option<usize> {
        if self.prefixes.is_empty() {
            return Some(0);
        }
        let fits = |prefix: &String| {
            let prefix = prefix.trim_end_matches('/').as_bytes();
            let rest = path.strip_prefix(prefix)?;
            matches!(rest.first(), None | Some(b'/')).then_some(1 + prefix.len())
        };
        self.prefixes.iter().filter_map(fits).max()
    }
}

impl Site {
    /// An app comes to this address.
    ///
    /// # Errors
    /// The name of an app that has the same place here.
    pub fn join(&self, place: Place, front: &Front) -> Result<(), String> {
        let mut apps = self.0.apps.write();
        let same = |(other, shared): &&(Place, Arc<Shared>)| {
            !Arc::ptr_eq(shared, front.shared()) && overlaps(other, &place)
        };
        if let Some((_, shared)) = apps.iter().find(same) {
            return Err(shared.config.app.clone());
        }
        apps.retain(|(_, shared)| !Arc::ptr_eq(shared, front.shared()));
        apps.push((place, front.shared().clone()));
        self.note(&apps);
        Ok(())
    }

    /// An app leaves this address.
    pub fn leave(&self, front: &Front) {
        let mut apps = self.0.apps.write();
        apps.retain(|(_, shared)| !Arc::ptr_eq(shared, front.shared()));
        self.note(&apps);
    }

    fn note(&self, apps: &[(Place, Arc<Shared>)]) {
        let chooses = apps.len() > 1 || apps.iter().any(|(place, _)| !place.takes_all());
        self.0.chooses.store(chooses, Ordering::Relaxed);
    }

    /// Whose a request is that is going `here`.
    pub(crate) fn whose(&self, head: &Head<'_, '_>, here: &Shared) -> Whose {
        if !self.0.chooses.load(Ordering::Relaxed) {
            return Whose::Here;
        }
        let host = plain_host(head.host().unwrap_or_default());
        let target = head.target.as_bytes();
        let path = &target[..memchr::memchr(b'?', target).unwrap_or(target.len())];
        let apps = self.0.apps.read();
        let mut known = false;
        let fitting = apps.iter().filter_map(|(place, shared)| {
            let by_host = place.host(host)?;
            known = true;
            Some(((by_host, place.prefix(path)?), shared))
        });
        match fitting.max_by_key(|(fit, _)| *fit).map(|(_, shared)| shared) {
            Some(shared) if std::ptr::eq(Arc::as_ptr(shared), here) => Whose::Here,
            Some(shared) => Whose::There(shared.clone()),
            None if known => Whose::NoPath,
            None => Whose::NoHost,
        }
    }
}

/// Some request fits both, and neither better.
fn overlaps(one: &Place, other: &Place) -> bool {
    fn shared(one: &[String], other: &[String]) -> bool {
        (one.is_empty() && other.is_empty()) || one.iter().any(|item| other.contains(item))
    }
    shared(&one.hosts, &other.hosts) && shared(&one.prefixes, &other.prefixes)
}

/// A host without its port, and without the dot that ends a full name.
fn plain_host(host: &[u8]) -> &[u8] {
    let name = match host.first() {
        Some(b'[') => &host[..memchr::memchr(b']', host).map_or(host.len(), |at| at + 1)],
        _ => &host[..memchr::memchr(b':', host).unwrap_or(host.len())],
    };
    name.strip_suffix(b".").unwrap_or(name)
}

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.apps.read().iter().map(|(place, shared)| (&shared.config.app, place)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(hosts: &[&str], prefixes: &[&str]) -> Place {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        Place { hosts: owned(hosts), prefixes: owned(prefixes) }
    }

    #[test]
    fn the_most_exact_host_and_the_longest_prefix_count() {
        let many = place(&["chat.example.com", "*.example.com", "*.com"], &["/chat", "/chat/old/"]);
        let exact = many.host(b"CHAT.example.com");
        assert!(exact > many.host(b"a.example.com") && many.host(b"a.example.com") > many.host(b"b.com"));
        assert_eq!(many.host(b"example.org"), None);
        assert_eq!(place(&["*.example.com"], &[]).host(b"example.com"), None);
        assert!(many.prefix(b"/chat/old/x") > many.prefix(b"/chat/x"));
        assert_eq!(many.prefix(b"/chat"), many.prefix(b"/chat/"));
        assert_eq!(many.prefix(b"/chatter"), None);
        assert_eq!(place(&[], &["/"]).prefix(b"/any"), Some(1));
        assert_eq!(place(&[], &[]).prefix(b"/any"), Some(0));
    }

    #[test]
    fn a_host_is_told_without_port_and_last_dot() {
        for (host, plain) in
            [("a.b:80", "a.b"), ("a.b.", "a.b"), ("[::1]:80", "[::1]"), ("", ""), ("a.b.:1", "a.b")]
        {
            assert_eq!(plain_host(host.as_bytes()), plain.as_bytes());
        }
    }

    #[test]
    fn two_apps_cannot_be_at_one_place() {
        let none = place(&[], &[]);
        assert!(overlaps(&none, &none));
        assert!(!overlaps(&none, &place(&["a"], &[])));
        assert!(!overlaps(&place(&["a"], &["/x"]), &place(&["a"], &["/y"])));
        assert!(overlaps(&place(&["a", "b"], &["/x"]), &place(&["b"], &["/y", "/x"])));
        assert!(!overlaps(&place(&["a"], &[]), &place(&["a"], &["/y"])));
    }
}
