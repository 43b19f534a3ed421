//! Compression of polling answers: which encoding a client takes, and the encoding itself.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// An encoding of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    /// What HTTP calls so: deflate in the format of zlib.
    Deflate,
}

impl Encoding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        }
    }

    /// The encoding a client likes best, of those there are; gzip if it likes both the same. `accept`: the values of its
    /// `Accept-Encoding` headers.
    pub(crate) fn best<'a>(accept: impl Iterator<Item = &'a str>) -> Option<Encoding> {
        let (mut gzip, mut deflate, mut any) = (None, None, None);
        for part in accept.flat_map(|value| value.split(',')) {
            let (name, quality) = part.split_once(';').unwrap_or((part, ""));
            let quality = match quality.trim().split_once('=') {
                Some(("q" | "Q", quality)) => quality.trim().parse().unwrap_or(0.0),
                _ => 1.0f32,
            };
            match name.trim() {
                name if name.eq_ignore_ascii_case("gzip") => gzip = Some(quality),
                name if name.eq_ignore_ascii_case("deflate") => deflate = Some(quality),
                "*" => any = Some(quality),
                _ => {}
            }
        }
        let (gzip, deflate) = (gzip.or(any).unwrap_or(0.0), deflate.or(any).unwrap_or(0.0));
        match gzip >= deflate {
            true => (gzip > 0.0).then_some(Encoding::Gzip),
            false => Some(Encoding::Deflate),
        }
    }

    /// The bytes encoded; `None` if that would make them no smaller.
    pub(crate) fn encode(self, bytes: &[u8], level: u32) -> Option<Bytes> {
        let room = Vec::with_capacity(bytes.len() / 3);
        let level = Compression::new(level.min(9));
        let encoded = match self {
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(room, level);
                encoder.write_all(bytes).and_then(|()| encoder.finish())
            }
            Encoding::Deflate => {
                let mut encoder = ZlibEncoder::new(room, level);
                encoder.write_all(bytes).and_then(|()| encoder.finish())
            }
        };
        // Into memory: it does not fail.
        encoded.ok().filter(|encoded| encoded.len() < bytes.len()).map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn clients_choose() {
        use Encoding::{Deflate, Gzip};
        for (accept, best) in [
            ("", None),
            ("br", None),
            ("gzip", Some(Gzip)),
            ("deflate", Some(Deflate)),
            ("deflate, GZIP, br", Some(Gzip)),
            ("gzip;q=0.5, deflate", Some(Deflate)),
            ("gzip;q=0, deflate;q=0", None),
            ("gzip; q=0.8 , deflate ; q=0.7", Some(Gzip)),
            ("gzip;q=x", None),
            ("*", Some(Gzip)),
            ("*;q=0.1, gzip;q=0", Some(Deflate)),
            ("identity;q=1, *;q=0", None),
        ] {
            assert_eq!(Encoding::best([accept].into_iter()), best, "{accept}");
        }
        assert_eq!(Encoding::best(["br", "deflate"].into_iter()), Some(Deflate));
    }

    #[test]
    fn what_is_encoded_can_be_read() {
        let text = "again and again ".repeat(200);
        let gzip = Encoding::Gzip.encode(text.as_bytes(), 6).unwrap();
        let deflate = Encoding::Deflate.encode(text.as_bytes(), 6).unwrap();
        assert!(gzip.len() < 200 && deflate.len() < gzip.len());
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, text);
        plain.clear();
        flate2::read::ZlibDecoder::new(&deflate[..]).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, text);
        assert_eq!(Encoding::Gzip.encode(b"abc", 6), None);
    }
}
