//! Who asks, where proxies stand before the platform: their word is taken, and nobody else's.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use kernel::Networks;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The networks that proxies of ours are in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(pub Networks);

impl Proxies {
    /// Who asks: the peer, or where that is a proxy of ours, the last address in `X-Forwarded-For` that is not. Whatever
    /// stands before it may have been made up.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        // Of bytes, and each by itself: what a client has made up does not spoil what its proxy has put behind it.
        let named = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for name in named {
            if !self.0.have(client) {
                break;
            }
            // A proxy of ours that names nobody is all that is known.
            let name = std::str::from_utf8(name).unwrap_or_default();
            let Some(before) = address(name.trim()) else { break };
            client = before;
        }
        client
    }

    /// Whether an address is that of a proxy of ours, which is nobody's who asks: it has named nobody, or nobody that can be
    /// read.
    pub fn are_at(&self, address: IpAddr) -> bool {
        self.0.have(address)
    }
}

/// An address as proxies write it: some add a port.
fn address(text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    parsed.or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(proxies: &[&str], peer: &str, lines: &[impl AsRef<[u8]>]) -> String {
        let proxies = Proxies(Networks::of(proxies.iter().copied()).unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_ref()).unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn nobody_but_a_proxy_of_ours_says_who_asks() {
        let ours = ["10.0.0.0/8", "fd00::/8", "192.0.2.1"];
        for (peer, lines, expected) in [
            ("203.0.113.9", &["198.51.100.7"][..], "203.0.113.9"),
            ("10.1.2.3", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.1.2.3", &["198.51.100.7"], "198.51.100.7"),
            ("fd00::1", &["2001:db8::7"], "2001:db8::7"),
            ("10.1.2.3", &[], "10.1.2.3"),
            // What the client itself has sent stands first, and is not believed.
            ("10.1.2.3", &["192.168.0.1, 198.51.100.7"], "198.51.100.7"),
            ("10.1.2.3", &["192.168.0.1", "198.51.100.7"], "198.51.100.7"),
            ("10.1.2.3", &["192.168.0.1, 198.51.100.7, 10.9.9.9, 192.0.2.1"], "198.51.100.7"),
            ("10.1.2.3", &["10.4.4.4"], "10.4.4.4"),
            ("10.1.2.3", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.1.2.3", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.1.2.3", &["198.51.100.7, unknown"], "10.1.2.3"),
            ("10.1.2.3", &["", "198.51.100.7", ","], "10.1.2.3"),
            ("11.0.0.1", &["198.51.100.7"], "11.0.0.1"),
        ] {
            assert_eq!(client(&ours, peer, lines), expected, "{peer} {lines:?}");
        }
        // Bytes that are no text, of who wants the proxy to be taken for who asks.
        for line in
            [&b"\xff, 198.51.100.7"[..], b"10.4.4.4\xff,198.51.100.7", b"\xc3\x28,\xff , 198.51.100.7"]
        {
            assert_eq!(client(&ours, "10.1.2.3", &[line]), "198.51.100.7", "{line:?}");
        }
        assert_eq!(client(&ours, "10.1.2.3", &[&b"198.51.100.7, \xff"[..]]), "10.1.2.3");
        let proxies = Proxies(Networks::of(ours.into_iter()).unwrap());
        assert!(proxies.are_at("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!proxies.are_at("198.51.100.7".parse().unwrap()));
        assert_eq!(client(&[], "127.0.0.1", &["198.51.100.7"]), "127.0.0.1");
        assert_eq!(client(&["0.0.0.0/0"], "203.0.113.9", &["198.51.100.7"]), "198.51.100.7");
    }
}
